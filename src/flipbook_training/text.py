"""flipbook's tokenizer and text encoder: the words of the world's grammar, and a small UMT5 that
understands them.

The encoder learns, before any picture is seen, to tell from a caption every attribute of its scene
(one linear head per attribute on the mean of its outputs). Then it is frozen: both transformer
sizes share it, and text embeddings can be computed once. Words outside the grammar become one
unknown token.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import PreTrainedTokenizerFast, UMT5Config, UMT5EncoderModel

from flipbook_training import world
from vidplat.training.muon import Pair, warm_then_down
from vidplat.training.runs import Say, needed_checkpoint, run_steps

MAX_TOKENS = 32
WIDTH = 128
_SPECIAL = ("<pad>", "</s>", "<unk>")


def vocabulary() -> list[str]:
    """Special tokens, then every word that a caption can hold, sorted."""
    words: set[str] = {",", "."}
    for seed in range(3000):
        rng = np.random.default_rng(seed)
        words.update(world.describe(world.draw_scene(rng), rng).replace(",", " ,").split())
    for names in (world.COLOURS, world.SHAPES, world.SIZES, world.BACKGROUNDS, world.TEXTURES):
        words.update(names)
    words.update(world.DIRECTIONS)
    return [*_SPECIAL, *sorted(words)]


def new_tokenizer() -> PreTrainedTokenizerFast:
    """Lower case, words and punctuation, `</s>` at the end; at most MAX_TOKENS tokens."""
    core = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(vocabulary())}, unk_token="<unk>")
    )
    core.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    core.pre_tokenizer = pre_tokenizers.Whitespace()
    core.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
        model_max_length=MAX_TOKENS,
    )


def new_text_encoder() -> UMT5EncoderModel:
    return UMT5EncoderModel(
        UMT5Config(
            vocab_size=len(vocabulary()),
            d_model=WIDTH,
            d_kv=32,
            d_ff=256,
            num_layers=2,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
        )
    )


def attributes(scene: world.Scene) -> dict[str, str]:
    """Every attribute of a scene as a word; "" where it does not apply."""
    facts: dict[str, str] = {"class": scene.motion_class}
    for number in range(2):
        shot = scene.shots[number] if number < len(scene.shots) else None
        facts[f"texture {number}"] = shot.texture if shot else ""
        facts[f"background {number}"] = shot.background if shot else ""
    facts["pan"] = scene.shots[0].pan
    things = [thing for shot in scene.shots for thing in shot.things]
    for number in range(2):
        thing = things[number] if number < len(things) else None
        facts[f"size {number}"] = thing.size if thing else ""
        facts[f"colour {number}"] = thing.colour if thing else ""
        facts[f"shape {number}"] = thing.shape if thing else ""
        facts[f"motion {number}"] = (
            " ".join((thing.motion.kind, thing.motion.way, thing.motion.speed)) if thing else ""
        )
    return facts


def embed(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, texts: list[str]
) -> Tensor:
    """(N, MAX_TOKENS, WIDTH) float32, zero behind each text's end: what `WanPipeline.encode_prompt`
    gives."""
    tokens = tokenizer(
        texts, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
    )
    states: Tensor = encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
    masked: Tensor = states * tokens.attention_mask[..., None]
    return masked


def embed_all(
    tokenizer: PreTrainedTokenizerFast, encoder: UMT5EncoderModel, texts: list[str]
) -> Tensor:
    """As `embed`, of many texts, 256 at a time."""
    parts = [texts[i : i + 256] for i in range(0, len(texts), 256)]
    return torch.cat([embed(tokenizer, encoder, part) for part in parts])


def train_text(
    folder: Path, *, steps: int, say: Say, lr: float = 3e-3, seed: int = 0
) -> UMT5EncoderModel:
    """Train or go on training; `folder` keeps the checkpoint text.pt."""
    torch.manual_seed(seed)
    tokenizer, encoder = new_tokenizer(), new_text_encoder()
    seen = [attributes(world.draw_scene(np.random.default_rng(s))) for s in range(5000)]
    values = {key: sorted({facts[key] for facts in seen}) for key in seen[0]}
    heads = nn.ModuleDict({key: nn.Linear(WIDTH, len(names)) for key, names in values.items()})
    both = nn.ModuleDict({"encoder": encoder, "heads": heads})
    pair = Pair(both, lr, plain=("shared", "embed", "heads", "relative"))

    def one_step(step: int) -> dict[str, float]:
        texts, targets = [], []
        for number in range(64):
            rng = np.random.default_rng([seed, 7, step, number])
            scene = world.draw_scene(rng)
            texts.append(world.describe(scene, rng))
            targets.append(attributes(scene))
        states = embed(tokenizer, encoder, texts)
        pooled = states.sum(1) / (states.abs().sum(-1, keepdim=True) > 0).sum(1)
        losses, right = [], []
        for key, names in values.items():
            logits = heads[key](pooled)
            truth = torch.tensor(
                [names.index(facts[key]) if facts[key] in names else 0 for facts in targets]
            )
            losses.append(nn.functional.cross_entropy(logits, truth))
            right.append((logits.argmax(-1) == truth).float().mean().item())
        loss = torch.stack(losses).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        pair.step(warm_then_down(step, steps))
        return {"loss": loss.item(), "right": float(np.mean(right)), "worst": min(right)}

    run_steps("text", pair, steps=steps, path=folder / "text.pt", one_step=one_step, say=say)
    return encoder.eval()


def trained_text(folder: Path) -> UMT5EncoderModel:
    """The encoder of the last checkpoint."""
    saved = needed_checkpoint(folder / "text.pt", "run the text training")
    encoder, start = new_text_encoder(), "encoder."
    own = {key: weight for key, weight in saved["model"].items() if key.startswith(start)}
    encoder.load_state_dict({key.removeprefix(start): weight for key, weight in own.items()})
    return encoder.eval()
