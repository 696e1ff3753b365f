"""Small adapters on a frozen backbone, N of them in one bank: soft prompts and LoRA, and their PEFT files."""

from __future__ import annotations

from harness.adapters.bank import Bank, BaseFacts
from harness.adapters.combine import combine_loras
from harness.adapters.create import AdapterSpec, create_bank
from harness.adapters.lora import LoRABank
from harness.adapters.peft_format import load_bank, save_bank
from harness.adapters.soft_prompt import SoftPromptBank
from harness.specs import LoRA, SoftPrompt

__all__ = [
    "AdapterSpec",
    "Bank",
    "BaseFacts",
    "LoRA",
    "LoRABank",
    "SoftPrompt",
    "SoftPromptBank",
    "combine_loras",
    "create_bank",
    "load_bank",
    "save_bank",
]
