"""Every encoder, resampler, projector and objective there is has a test that holds it against something else."""

from pathlib import Path

import pytest

from tests import parts_table


@pytest.mark.parametrize("part", parts_table.parts(), ids=lambda part: f"{part.role}-{part.kind}")
def test_every_part_has_a_proof(part: parts_table.Part) -> None:
    held = [proof for proof in parts_table.proofs() if proof.kind == part.kind]
    assert held, f"{part.role} {part.kind!r} has no test marked @pytest.mark.proof({part.kind!r}, against=...)"


def test_every_proof_is_of_a_part() -> None:
    kinds = {part.kind for part in parts_table.parts()}
    assert [proof for proof in parts_table.proofs() if proof.kind not in kinds] == []


def test_kinds_are_unique() -> None:
    """A proof names its part by kind alone."""
    kinds = [part.kind for part in parts_table.parts()]
    assert sorted(kinds) == sorted(set(kinds))


def test_marks_are_found_in_source(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_x.py").write_text(
        '@pytest.mark.slow\n@pytest.mark.proof("mlp", against="torch")\ndef test_x() -> None: ...\n'
        "def test_y() -> None: ...\n"
    )
    assert parts_table.proofs(tmp_path / "tests") == [parts_table.Proof("mlp", "torch", "tests/test_x.py::test_x")]


def test_marks_in_variables_are_refused(tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text("@pytest.mark.proof(KIND, against='torch')\ndef test_x() -> None: ...\n")
    with pytest.raises(ValueError, match="in literals"):
        parts_table.proofs(tmp_path)
