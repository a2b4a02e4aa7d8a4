"""The decoder of representation autoencoders: that of a masked autoencoder without mask tokens, its class token learnt.

Blocks and positions are those of the library transformers of Hugging Face, and the names of all tensors are its modules'.
"""

import math
import os

import torch

import nets
from precision import lift

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing here may come from the network

WIDTH, BLOCKS, HEADS, MLP = 32, 2, 4, 48
EPSILON = 1e-12


class Decoder(torch.nn.Module):
    """Maps of features -> RGB 0-255, not clipped."""

    def __init__(self, channels, grid, crop):
        super().__init__()
        from transformers import ViTMAEConfig
        from transformers.models.vit_mae import modeling_vit_mae as library

        config = ViTMAEConfig(
            hidden_size=WIDTH, num_hidden_layers=BLOCKS, num_attention_heads=HEADS, intermediate_size=MLP,
            hidden_act="gelu", layer_norm_eps=EPSILON, qkv_bias=True, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        )
        config._attn_implementation = "sdpa"
        self.patch, self.crop = crop // grid, crop
        positions = library.get_2d_sincos_pos_embed(WIDTH, grid, add_cls_token=True)
        self.decoder_pos_embed = torch.nn.Parameter(torch.from_numpy(positions).float()[None], requires_grad=False)
        self.trainable_cls_token = torch.nn.Parameter(torch.zeros(1, 1, WIDTH))
        self.decoder_embed = torch.nn.Linear(channels, WIDTH)
        self.decoder_layers = torch.nn.ModuleList([library.ViTMAELayer(config) for _ in range(BLOCKS)])
        self.decoder_norm = torch.nn.LayerNorm(WIDTH, eps=EPSILON)
        self.decoder_pred = torch.nn.Linear(WIDTH, self.patch**2 * 3)

    def forward(self, y):
        tokens = self.decoder_embed(y.flatten(2).mT)
        tokens = torch.cat([self.trainable_cls_token.expand(len(y), -1, -1), tokens], 1) + self.decoder_pos_embed
        for layer in self.decoder_layers:
            tokens = layer(tokens)
        pixels = self.decoder_pred(self.decoder_norm(tokens))[:, 1:]
        # (N, T, patch * patch * 3) -> (N, 3 * patch * patch, T), which fold lays side by side.
        columns = pixels.unflatten(2, (self.patch**2, 3)).permute(0, 3, 2, 1).flatten(1, 2)
        images = torch.nn.functional.fold(columns, self.crop, self.patch, stride=self.patch)
        return 255.0 * (images * nets.per_channel(nets.IMAGENET_STD_RGB) + nets.per_channel(nets.IMAGENET_MEAN_RGB))


def case(args, draw, with_gradients):
    """--features C,f and --crop."""
    channels, grid = args.features
    model = Decoder(channels, grid, args.crop).eval()
    fixed = {"decoder_pos_embed": model.decoder_pos_embed.detach()}
    w = {}
    for name, old in model.state_dict().items():
        shape = tuple(old.shape)
        if name in fixed:
            continue
        if len(shape) == 2:
            w[name] = draw.normal(shape, 1 / math.sqrt(shape[1]))
        elif name.endswith("weight"):
            w[name] = 1.0 + draw.normal(shape, 0.2)
        else:
            w[name] = draw.normal(shape, 0.2)
    y = draw.features(args.batch, args.features)

    def forward(w, y):
        return torch.func.functional_call(model, w | lift(fixed), (y,))

    out = {f"w/{k}": v for k, v in (w | fixed).items()}
    out.update(with_gradients(w, y, forward, draw))
    return out, {"features": ",".join(map(str, args.features)), "sizes": f"{WIDTH},{BLOCKS},{HEADS},{MLP}"}
