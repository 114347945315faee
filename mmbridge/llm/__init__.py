"""The frozen LLM and everything that is about text: prompts, chat templates, splicing, generation."""
