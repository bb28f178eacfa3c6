"""The frozen text side: a byte-level CLIP tokenizer and a small random CLIP text tower.

Neither is trained. A random tower maps equal captions to equal vectors and different captions to different vectors,
which suffices for the prompts of this model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

CONTEXT = 16
WIDTH = 64
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = (
    r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
)


def learn_merges(captions: Sequence[str]) -> list[tuple[str, str]]:
    """Byte-pair merges that make the words of the captions one or two tokens each."""
    learner = Tokenizer(BPE(unk_token=END, end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    trainer = BpeTrainer(vocab_size=1024, end_of_word_suffix="</w>", show_progress=False)
    learner.train_from_iterator(sorted(set(captions)), trainer)
    return [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]


def build_tokenizer(folder: Path, captions: Sequence[str]) -> CLIPTokenizer:
    """256 bytes, each inside and at the end of a word, the merges, and two marks."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = learn_merges(captions)
    # all 256 bytes, so that no text is unknown
    entries = [*alphabet, *(f"{letter}</w>" for letter in alphabet)]
    entries += [left + right for left, right in merges]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(entries))}
    # last: CLIP's encoder pools at the largest token number, which must be the end
    vocabulary |= {START: len(vocabulary), END: len(vocabulary) + 1}
    core = Tokenizer(
        BPE(
            vocabulary,
            merges,
            unk_token=END,
            end_of_word_suffix="</w>",
            continuing_subword_prefix="",
        )
    )
    core.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORD), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.RobertaProcessing(
        (END, vocabulary[END]),
        (START, vocabulary[START]),
        trim_offsets=False,
        add_prefix_space=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "tokenizer.json"
    core.save(str(file))
    return load_tokenizer(folder)


def load_tokenizer(folder: Path) -> CLIPTokenizer:
    """The tokenizer that ``build_tokenizer`` wrote."""
    return CLIPTokenizer(
        tokenizer_file=str(folder / "tokenizer.json"),
        bos_token=START,
        eos_token=END,
        unk_token=END,
        pad_token=END,
        model_max_length=CONTEXT,
    )


def build_text_encoder(vocabulary: int, seed: int = 1) -> CLIPTextModel:
    """Two layers of width 64, randomly initialised from ``seed``."""
    torch.manual_seed(seed)
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=WIDTH,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=CONTEXT,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    return CLIPTextModel(config).eval().requires_grad_(False)


@torch.no_grad()
def embed(captions: Sequence[str], tokenizer: CLIPTokenizer, encoder: CLIPTextModel) -> Tensor:
    """Embeddings (captions, 16, 64), the way the pipeline makes them."""
    ids = tokenizer(
        list(captions), padding="max_length", max_length=CONTEXT, truncation=True,
        return_tensors="pt",
    ).input_ids  # fmt: skip
    states: Tensor = encoder(ids)[0]
    return states
