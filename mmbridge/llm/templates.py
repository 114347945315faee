"""Named chat templates for base models, in the Jinja dialect of transformers.

Each reads messages whose content is a list of ``{"type": "text", "text": …}`` and ``{"type": "image"}`` parts, as
transformers' own multimodal templates do, so that a template can be written into an exported folder as it stands.
``{% generation %}`` marks what the assistant says: those tokens are supervised. A template writes no bos token; the
tokenizer puts its own in front, as in pretraining.
"""

import json
from typing import Literal

TemplateName = Literal["plain", "caption", "qa", "vicuna_v1", "minigpt4", "minigpt4_llama2", "instructblip", "xllm"]

_PARTS = """\
{%- macro medium(part, following) -%}
{{ '<' + part.type + '>' }}
{%- if following is defined and following.type == 'text' and not following.text.startswith(SEPARATOR) -%}
{{ SEPARATOR }}
{%- endif -%}
{%- endmacro -%}
{%- macro whole(content) -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{ part.text }}{%- else -%}{{ medium(part, loop.nextitem) }}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
{%- macro media(content) -%}
{%- for part in content if part.type != 'text' -%}{{ '<' + part.type + '>' }}{%- endfor -%}
{%- endmacro -%}
"""
"""``whole`` writes a message's text and placeholders in order; ``media`` its placeholders only."""

_TURNS: dict[TemplateName, str] = {
    # LLaVA's first stage (arXiv 2304.08485): the image, its caption, a newline; the instruction is left out.
    "plain": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{% generation %}{{ whole(message.content) | trim + '\\n' }}{% endgeneration %}
{%- else -%}
{{ media(message.content) }}
{%- endif -%}
{%- endfor -%}
""",
    # LiMBeR (arXiv 2209.15162): the image, "A picture of", the caption; the instruction is left out.
    "caption": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ 'A picture of' }}{% generation %}{{ ' ' + whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- else -%}
{{ media(message.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'A picture of' }}{%- endif -%}
""",
    # The prompt BLIP-2 (arXiv 2301.12597) asks a base model with.
    "qa": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ ' Answer:' }}{% generation %}{{ ' ' + whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ media(message.content) + 'Question: ' + words(message.content) }}
{%- else -%}
{{ whole(message.content) + '\\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ ' Answer:' }}{%- endif -%}
""",
    # Vicuna's conversation of version 1, LLaVA-1.5's second stage (arXiv 2310.03744).
    "vicuna_v1": """\
{%- if messages[0].role != 'system' -%}
{{ "A chat between a curious user and an artificial intelligence assistant. " }}
{{- "The assistant gives helpful, detailed, and polite answers to the user's questions. " }}
{%- endif -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ 'ASSISTANT:' }}{% generation %}{{ ' ' + whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ 'USER: ' + whole(message.content) + ' ' }}
{%- else -%}
{{ whole(message.content) + ' ' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
""",
    # MiniGPT-4's second stage (arXiv 2304.10592) before Vicuna of version 0: three hashes begin and end every turn.
    "minigpt4": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '###Assistant:' }}{% generation %}{{ ' ' + whole(message.content) | trim + '###' }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ '' if loop.previtem is defined and loop.previtem.role == 'assistant' else '###' }}
{{- 'Human: ' + tagged(message.content) + ' ' }}
{%- else -%}
{{ whole(message.content) }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '###Assistant:' }}{%- endif -%}
""",
    # The same before Llama-2-chat.
    "minigpt4_llama2": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '[/INST]' }}{% generation %}{{ ' ' + whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ '[INST] ' + tagged(message.content) + ' ' }}
{%- else -%}
{{ whole(message.content) + ' ' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '[/INST]' }}{%- endif -%}
""",
    # InstructBLIP before Vicuna (arXiv 2305.06500): the image, the instruction, the answer, and nothing between them.
    "instructblip": """\
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{% generation %}{{ ' ' + whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{{ media(message.content) + words(message.content) | trim }}
{%- else -%}
{{ whole(message.content) + ' ' }}
{%- endif -%}
{%- endfor -%}
""",
    # X-LLM before ChatGLM (arXiv 2305.04160): media between tags, then question and answer.
    "xllm": """\
{%- set tags = {'image': 'Image', 'audio': 'Speech', 'video': 'Video'} -%}
{%- for message in messages -%}
{%- if message.role == 'assistant' -%}
{{ '答：' }}{% generation %}{{ whole(message.content) | trim + eos_token }}{% endgeneration %}
{%- elif message.role == 'user' -%}
{%- for part in message.content if part.type != 'text' -%}
{%- if part.type in tags -%}
{{ '<' + tags[part.type] + '><' + part.type + '></' + tags[part.type] + '>' }}
{%- else -%}{{ '<' + part.type + '>' }}{%- endif -%}
{%- endfor -%}
{{ '问：' + words(message.content) | trim + '\n' }}
{%- else -%}
{{ whole(message.content) + '\n' }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '答：' }}{%- endif -%}
""",
}

_WORDS = """\
{%- macro words(content) -%}
{%- for part in content if part.type == 'text' -%}{{ part.text }}{%- endfor -%}
{%- endmacro -%}
"""

_TAGGED = """\
{%- macro tagged(content) -%}
{%- for part in content -%}
{%- if part.type == 'text' -%}{{ part.text }}
{%- elif part.type == 'image' -%}
{{ '<Img><image></Img>' }}{{ ' ' if loop.nextitem is defined and loop.nextitem.type == 'text' }}
{%- else -%}{{ medium(part, loop.nextitem) }}{%- endif -%}
{%- endfor -%}
{%- endmacro -%}
"""
"""MiniGPT-4's content: every image between tags, a space behind them."""

_FLATTEN = """\
{%- set flat = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set flat.messages = flat.messages + [{'role': message.role, 'content': whole(message.content)}] -%}
{%- endfor -%}
{%- set messages = flat.messages %}
"""


def named_template(name: TemplateName, separator: str) -> str:
    """The template of this name, with ``separator`` between a medium and the text that follows it."""
    return _set(separator) + _PARTS + _WORDS + _TAGGED + _TURNS[name]


def flattened(template: str, separator: str) -> str:
    """A text-only chat template that now takes parts: each message becomes one string before it is read.

    The template itself stands unchanged behind a newline, which Jinja's block trimming takes away again, so its own
    whitespace comes out as before.
    """
    return _set(separator) + _PARTS + _FLATTEN + template


def _set(separator: str) -> str:
    return "{%- set SEPARATOR = " + json.dumps(separator) + " -%}\n"
