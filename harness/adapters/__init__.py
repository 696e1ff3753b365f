"""Small adapters on a frozen backbone, N of them in one bank, and their files.

Soft prompts of three kinds (before the input, in the cache, words), gated prefixes, LoRA.
"""

from __future__ import annotations

from harness.adapters.bank import Bank, BaseFacts
from harness.adapters.combine import combine_loras
from harness.adapters.create import AdapterSpec, create_bank
from harness.adapters.discrete_prompt import DiscretePromptBank
from harness.adapters.gated_prefix import GatedPrefixBank
from harness.adapters.kv_prefix import KVPrefixBank
from harness.adapters.lora import LoRABank
from harness.adapters.peft_format import load_bank, save_bank
from harness.adapters.soft_prompt import SoftPromptBank
from harness.specs import GatedPrefix, LoRA, SoftPrompt

__all__ = [
    "AdapterSpec",
    "Bank",
    "BaseFacts",
    "DiscretePromptBank",
    "GatedPrefix",
    "GatedPrefixBank",
    "KVPrefixBank",
    "LoRA",
    "LoRABank",
    "SoftPrompt",
    "SoftPromptBank",
    "combine_loras",
    "create_bank",
    "load_bank",
    "save_bank",
]
