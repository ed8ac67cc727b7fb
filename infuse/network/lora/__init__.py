"""Networks of the LoRA family: `change` reads the parameters of one module, `Change` says what they do to its layer, `LoraNetwork`
holds those of a file. One algebra, one file."""

from infuse.network.lora.change import Change
from infuse.network.lora.low_rank import LowRank
from infuse.network.lora.network import LoraNetwork
from infuse.network.lora.reading import change

__all__ = ["Change", "LoraNetwork", "LowRank", "change"]
