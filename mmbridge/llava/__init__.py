"""transformers' LLaVA folders, read as bridges and written from them.

Visual Instruction Tuning
Haotian Liu, Chunyuan Li, Qingyang Wu, Yong Jae Lee, arXiv 2304.08485

differs from the paper: nothing; the folder format and the numbers are those of transformers'
``LlavaForConditionalGeneration`` and, for reading, ``LlavaNextForConditionalGeneration``.
"""

from mmbridge.llava.export import export_llava
from mmbridge.llava.reading import is_llava, load_llava, read_recipe

__all__ = ["export_llava", "is_llava", "load_llava", "read_recipe"]
