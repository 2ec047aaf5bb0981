"""A tiny Llama with random weights and a tokenizer of whole words, made on the spot: `python -m ... FOLDER`.

Nothing is downloaded. A word is a token, so prompts of words have exact lengths, and no token ends an answer.
"""

from __future__ import annotations

import sys
from pathlib import Path

from llmsim.client.prompts import VOCABULARY

SPECIAL = ("<s>", "</s>", "<pad>", "<unk>")
LONGEST = 4096


def make(folder: Path) -> None:
    """Write model and tokenizer."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate((*SPECIAL, *VOCABULARY))}
    words = Tokenizer(models.WordLevel(vocab=vocabulary, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    start, end, pad, unknown = SPECIAL
    PreTrainedTokenizerFast(
        tokenizer_object=words,
        bos_token=start,
        eos_token=end,
        pad_token=pad,
        unk_token=unknown,
        chat_template="it is {% for message in messages %}{{ message['content'] }} {% endfor %}of that",
    ).save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(vocabulary),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=LONGEST,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=2,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = None
    model.save_pretrained(folder)


if __name__ == "__main__":
    make(Path(sys.argv[1]))
