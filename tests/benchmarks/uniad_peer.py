"""Anomaly maps of UniAD's transformer on the features of configs/amdm_folder.yaml.

    python tests/benchmarks/uniad_peer.py --root real --output uniad
    omiad evaluate --maps uniad --data.root real --image_size 448 --pool_size 16 --blur_sigma 4 \
        --output uniad/results.json

You et al. 2022, "A Unified Model for Multi-class Anomaly Detection" (NeurIPS), written from the
paper: attention that does not see a cell's neighbours (section 3.2), a query in every layer of the
decoder (3.1), jittered features (3.3), and the squared error of the reconstruction. The map is the
L2 norm of the difference. One model for all products sees as many images as stage 1 does. It works
on 14 x 14 cells with all channels, as in the paper.

Unlike the paper: each channel is standardised; tokens have 128 numbers in 4 heads (the paper has
256 in 8 heads for 272 channels, here are 168); attention weights are not dropped out; and the rate
rises to 5e-4 and falls to 0 within the 1,200 steps (the paper: 1e-4 for 1,000 epochs). Training
takes 18 minutes of one thread of an AMD EPYC.
"""

import argparse
import time
from pathlib import Path

import lightning
import torch
from shipped_features import BATCH_SIZE, ShippedFeatures
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from omiad.data.datamodule import Split

GRID, DIM, NUM_HEADS, DEPTH, DROPOUT = 14, 128, 4, 4, 0.1
NEIGHBOURHOOD = 7
"""Side of the square of cells that a cell does not attend to."""

JITTER = 20.0
RATE, DECAY, LARGEST_GRADIENT = 5e-4, 1e-4, 0.1


def hidden_neighbours(side: int, neighbourhood: int) -> Tensor:
    """Return which cells (N, N) are hidden from each cell of a square grid."""
    rows, columns = torch.arange(side * side) // side, torch.arange(side * side) % side
    near = [(at[:, None] - at[None]).abs() <= neighbourhood // 2 for at in (rows, columns)]
    return near[0] & near[1]


class Attention(nn.Module):
    """Attend to tokens of which neighbours are hidden, add, and normalise."""

    def __init__(self) -> None:
        super().__init__()
        self.attend = nn.MultiheadAttention(DIM, NUM_HEADS, batch_first=True)
        self.drop, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(DIM)
        self.register_buffer("hidden", hidden_neighbours(GRID, NEIGHBOURHOOD))

    def forward(self, query: Tensor, tokens: Tensor, position: Tensor) -> Tensor:
        """Return a query (B, N, D) after attention to tokens (B, N, D)."""
        found, _ = self.attend(
            *(query + position, tokens + position, tokens),
            attn_mask=self.hidden,
            need_weights=False,
        )
        out: Tensor = self.norm(query + self.drop(found))
        return out


class Layer(nn.Module):
    """A layer of the encoder, or of the decoder with a query of its own."""

    def __init__(self, *, decodes: bool) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.randn(1, GRID**2, DIM)) if decodes else None
        self.attention = nn.ModuleList(Attention() for _ in range(1 + decodes))
        self.mlp = nn.Sequential(nn.Linear(DIM, 4 * DIM), nn.ReLU(), nn.Linear(4 * DIM, DIM))
        self.drop, self.norm = nn.Dropout(DROPOUT), nn.LayerNorm(DIM)

    def forward(self, tokens: Tensor, encoded: Tensor, position: Tensor) -> Tensor:
        """Return tokens (B, N, D) after the layer.

        In the decoder the query attends to what the encoder gave and then to the layer before.
        """
        if self.query is None:
            tokens = self.attention[0](tokens, tokens, position)
        else:
            query = self.query.expand_as(tokens)
            query = self.attention[0](query, encoded, position)
            tokens = self.attention[1](query, tokens, position)
        out: Tensor = self.norm(tokens + self.drop(self.mlp(tokens)))
        return out


class UniAD(nn.Module):
    """Reconstruct features (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(channels, DIM), nn.Linear(DIM, channels)
        self.position = nn.Parameter(torch.rand(1, GRID**2, DIM))
        self.encoder = nn.ModuleList(Layer(decodes=False) for _ in range(DEPTH))
        self.decoder = nn.ModuleList(Layer(decodes=True) for _ in range(DEPTH))
        self.norm = nn.LayerNorm(DIM)

    def forward(self, x: Tensor) -> Tensor:
        """Return the reconstruction; in training of features with jitter."""
        cells = x.flatten(2).mT
        if self.training:
            scale = JITTER * cells.norm(dim=2, keepdim=True) / cells.shape[2]
            cells = cells + scale * torch.randn_like(cells)
        tokens = self.enter(cells)
        for layer in self.encoder:
            tokens = layer(tokens, tokens, self.position)
        encoded = tokens
        for layer in self.decoder:
            tokens = layer(tokens, encoded, self.position)
        return self.leave(self.norm(tokens)).mT.view_as(x)


def coarse(features: ShippedFeatures, split: Split) -> Tensor:
    """Return the features of a split, averaged to the grid."""
    batches = features.batches(split)
    return torch.cat([F.adaptive_avg_pool2d(features.read(split, b), GRID) for b in batches])


def fit(model: UniAD, x: Tensor, steps: int, seed: int) -> None:
    """Train on random batches, each epoch in a new order."""
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed)
    order, started = torch.empty(0, dtype=torch.long), time.perf_counter()
    for step in range(steps):
        if len(order) < BATCH_SIZE:
            order = torch.randperm(len(x), generator=generator)
        batch, order = x[order[:BATCH_SIZE]], order[BATCH_SIZE:]
        loss = F.mse_loss(model(batch), batch)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_GRADIENT)
        optimizer.step()
        schedule.step()
        if step % 50 == 49:
            minutes = (time.perf_counter() - started) / 60
            print(f"step {step + 1}: loss {loss:.3f}, {minutes:.1f} minutes", flush=True)


def main() -> None:
    """Train one model and write the maps of the test photographs."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--cache_dir", default="~/.cache/omiad")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    lightning.seed_everything(given.seed)
    features = ShippedFeatures(given.root, given.cache_dir)
    x = coarse(features, "train")
    model = UniAD(x.shape[1])
    fit(model, x, given.steps, given.seed)
    model.eval()
    with torch.no_grad():
        for row, one in enumerate(coarse(features, "test")):
            distance = (model(one[None]) - one).square().sum(1).sqrt()[0]
            features.write_map(given.output, row, distance)


if __name__ == "__main__":
    main()
