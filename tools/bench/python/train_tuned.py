"""The training works in PyTorch, tuned in earnest.

Usage: train_tuned.py FOLDER DEVICE fp32|tf32|bf16 THREADS eager|compiled|reduce-overhead|max-autotune [one-pass]

The last two are modes of torch.compile with CUDA graphs, for GPUs.

THREADS 0 leaves PyTorch its own number. `cargo xtask bench` finds arithmetic, threads and whether to compile by tune.py,
and starts this script with the environment below. What was tried, at fc6_b16 in fp32 on two
cores with AVX-512 and without AMX, interleaved and undisturbed unless said otherwise (s per iteration):

  kept
    no wasted work: one pass of the frozen network for encoder and comparator, G(y) reused,
      only the gradients that are used (backward(inputs=...)), one read of the five losses;
      fused Adam; NCHW                                                             1.31
    channels-last images and maps                                                  1.15
    glibc that keeps freed memory, in large pages (MALLOC_*, GLIBC_TUNABLES):
      at batch 16 it takes the outliers away; at batch 64                  4.35 after 5.3
    LRN as a banded 1x1 convolution with rsqrt(s) * sqrt(rsqrt(s)); as a Function of its own or
      left to autograd: no difference beyond noise; the Function needs less memory
    weights stored channels-last; in-place activations; flushed denormals: no loss
  measured and not kept
    bf16 autocast (chosen by trial: it wins where the processor has AMX)           1.99
    torch.compile of the networks, 50 s to compile; with LRN left to autograd (tried again
      in each run of the benchmark, by tune.py, which keeps it where it wins)      1.26; 1.28
    D on real and generated images as one batch                                    1.14 (noise)
    trunk biases of G left out altogether (they are zero)                          1.15
    generated images copied to channels-last before D and the comparator           1.15
    THP_MEM_ALLOC_ENABLE=1 instead of the settings of glibc: a part of their gain
    OMP_PROC_BIND=close, OMP_WAIT_POLICY=active                                    1.17, 1.18
"""

import sys

import torch
import torch.nn.functional as F

import inputs
import worker

CHANNELS_LAST = torch.channels_last
GRAPHS = ("reduce-overhead", "max-autotune")  # modes of torch.compile that record CUDA graphs
WARM_UP = 5  # iterations after which they are recorded


class Lrn(torch.autograd.Function):
    """x * s^-0.75 with s = 1 + alpha/n * (sum of squares over five channels), in fp32.

    The sum is a 1x1 convolution with a banded matrix (which is symmetric: the backward pass uses
    the same), the power rsqrt(s) * sqrt(rsqrt(s)).
    """

    @staticmethod
    def forward(ctx, x, band):
        root = F.conv2d(x * x, band).add_(1.0).rsqrt_()
        power = root.sqrt().mul_(root)
        ctx.save_for_backward(x, root, power, band)
        return x * power

    @staticmethod
    def backward(ctx, grad):
        x, root, power, band = ctx.saved_tensors
        inner = (grad * x).mul_(power).mul_(root).mul_(root)
        back = F.conv2d(inner, band).mul_(x)
        return (grad * power).sub_(back, alpha=1.5), None


def stored(t):
    """A copy in the order that oneDNN's kernels take without reordering."""
    return t.clone(memory_format=CHANNELS_LAST if t.dim() == 4 else torch.preserve_format)


class Training:
    def __init__(self, given, precision, images, one_pass=False, compiled=False, mode=None):
        self.mode = mode
        self.given, self.bf16, self.one_pass = given, precision == "bf16", one_pass
        if images.is_cuda:
            torch.backends.cudnn.benchmark = True
            torch.backends.cudnn.allow_tf32 = precision == "tf32"
            torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        self.x = stored(images)
        self.net = {name: stored(t) for name, t in given.weights["net"].items()}
        taps = (given.encoder_tap, given.comparator_tap)
        self.rows = max((given.rows_to(tap) for tap in taps), key=len)
        self.bands = {}
        # The trunk's biases do not learn, so that no gradient is computed for them.
        frozen = {row["name"] + ".bias" for row in given.generator if row["op"] == "deconv"}
        self.g = {k: stored(t).requires_grad_(k not in frozen) for k, t in given.weights["g"].items()}
        self.d = {k: stored(t).requires_grad_() for k, t in given.weights["d"].items()}
        self.g_learns = [p for p in self.g.values() if p.requires_grad]
        self.d_learns = list(self.d.values())
        decayed = {row["name"] + ".weight" for row in given.generator if row["op"] == "conv"}
        groups = [{"params": [p for k, p in self.g.items() if p.requires_grad and k not in decayed]}]
        if decayed:
            front = [self.g[k] for k in decayed]
            groups.append({"params": front, "weight_decay": given.adam_g["weight_decay"]})
        self.adam_g = adam(groups, given.adam_g)
        decay = given.adam_d["weight_decay"]
        self.adam_d = adam([{"params": self.d_learns, "weight_decay": decay}], given.adam_d)
        if given.net == "alexnet":
            self.scale, self.shift = (t.to(images.device) for t in to_torchvision())
        if compiled:
            self.compile()

    def compile(self):
        """Compiles the three networks. Dropout draws the numbers that it draws without, so that losses agree."""
        import torch._dynamo
        import torch._inductor.config

        torch._inductor.config.fallback_random = True
        if self.mode:
            # Graphs read weights where they are, instead of copying them in; the bands must be there, since what a
            # graph makes is overwritten.
            with torch.no_grad():
                self.features(self.x[:1], {self.given.encoder_tap, self.given.comparator_tap})
            fixed = [*self.net.values(), *self.g.values(), *self.d.values(), *self.bands.values()]
            fixed += [self.scale, self.shift] if self.given.net == "alexnet" else []
            for t in fixed:
                torch._dynamo.mark_static_address(t)
        with_mode = {"dynamic": False, "mode": self.mode}
        self.features = torch.compile(self.features, **with_mode)
        self.generate = torch.compile(self.generate, **with_mode)
        self.discriminate = torch.compile(self.discriminate, **with_mode)

    def cast(self):
        return torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.bf16)

    def lrn(self, x):
        channels = x.shape[1]
        if channels not in self.bands:
            band = torch.ones(channels, channels, device=x.device).triu(-2).tril(2) * (1e-4 / 5)
            self.bands[channels] = band.view(channels, channels, 1, 1)
        with torch.autocast(x.device.type, enabled=False):
            return Lrn.apply(x.float(), self.bands[channels])

    def features(self, x, taps):
        """The frozen network: one pass for all taps, up to the last of them."""
        if self.given.net == "alexnet":
            x = x.flip(1) * self.scale + self.shift
        found = {}
        for row in self.rows:
            if "key" in row:
                w, b = self.net[row["key"] + ".weight"], self.net[row["key"] + ".bias"]
            if row["op"] == "conv":
                x = F.conv2d(x, w, b, row["stride"], row["pad"], groups=row["groups"])
            elif row["op"] == "fc":
                x = F.linear(x.flatten(1), w, b)
            elif row["op"] == "relu":
                x = F.relu_(x)
            elif row["op"] == "pool":
                x = F.max_pool2d(x, 3, 2, ceil_mode=row["ceil"])
            else:
                x = self.lrn(x)
            if row["tap"] in taps:
                found[row["tap"]] = x
                if len(found) == len(taps):
                    break
        return found

    def generate(self, x):
        last = self.given.generator[-1]
        for row in self.given.generator:
            w, b = self.g[row["name"] + ".weight"], self.g[row["name"] + ".bias"]
            if row["op"] == "fc":
                x = F.linear(x, w, b)
            elif row["op"] == "conv":
                x = F.conv2d(x, w, b, padding=row["pad"])
            else:
                if x.dim() == 2:
                    x = x.view(-1, row["input"], 4, 4).contiguous(memory_format=CHANNELS_LAST)
                x = F.conv_transpose2d(x, w, b, row["stride"], row["pad"])
            if row is not last:
                x = F.leaky_relu_(x, inputs.SLOPE)
        crop = self.given.crop
        off = (x.shape[2] - crop) // 2
        return x[:, :, off : off + crop, off : off + crop]

    def discriminate(self, x):
        """Log-probabilities [N, 2], 0 = real."""
        last = self.given.discriminator[-1]
        for row in self.given.discriminator:
            w, b = self.d[row["name"] + ".weight"], self.d[row["name"] + ".bias"]
            if w.dim() == 4:
                x = F.relu_(F.conv2d(x, w, b, row["stride"]))
            else:
                if x.dim() == 4:
                    x = x.mean((2, 3), dtype=torch.float32)
                x = F.linear(F.dropout(x, 0.5), w, b)
                if row is not last:
                    x = F.relu_(x)
        return F.log_softmax(x.float(), 1)

    def iteration(self):
        """One step of D and one of G; the losses in the order of inputs.LOSSES, read at once."""
        if self.mode:
            torch.compiler.cudagraph_mark_step_begin()
        x, w, n = self.x, self.given.loss, len(self.x)
        encoder, comparator = self.given.encoder_tap, self.given.comparator_tap
        with torch.no_grad(), self.cast():
            found = self.features(x, {encoder, comparator})
        y, wanted = found[encoder], found[comparator]
        with self.cast():
            generated = self.generate(y)

        clear(self.d_learns)
        shown = generated.detach().requires_grad_(self.one_pass)
        with self.cast():
            d_real = -self.discriminate(x)[:, 0].mean()
            seen = self.discriminate(shown)
        d_fake = -seen[:, 1].mean()
        learns = self.d_learns + [shown] * self.one_pass
        (w["adv"] * (d_real + d_fake)).backward(inputs=learns)
        self.adam_d.step()

        clear(self.g_learns)
        with self.cast():
            logits = seen.detach() if self.one_pass else self.discriminate(generated)
            features = self.features(generated, {comparator})[comparator]
        adv = -logits[:, 0].mean()
        feat = (features.float() - wanted.float()).square().sum() / (2 * n)
        img = (generated.float() - x).square().sum() / (2 * n)
        loss = w["feat"] * feat + w["img"] * img
        if self.one_pass:
            # d(-log p) = -(1-p)/p * d(-log(1-p)) for each image, p the probability of "real".
            factor = -(logits[:, 1] - logits[:, 0]).exp()
            pushed = shown.grad * factor.view(-1, 1, 1, 1)
            roots, gradients = (loss, generated), (None, pushed.to(generated.dtype))
            torch.autograd.backward(roots, gradients, inputs=self.g_learns)
        else:
            (loss + w["adv"] * adv).backward(inputs=self.g_learns)
        self.adam_g.step()
        return torch.stack((feat, adv, img, d_real, d_fake)).tolist()


def adam(groups, options):
    betas = (options["beta1"], options["beta2"])
    return torch.optim.Adam(groups, lr=options["lr"], betas=betas, eps=options["eps"], fused=True)


def clear(params):
    for p in params:
        p.grad = None


def to_torchvision():
    """BGR minus the Caffe mean -> torchvision's units, as one multiplication and one addition."""
    std = torch.tensor(inputs.IMAGENET_STD_RGB)
    mean_rgb = torch.tensor(inputs.MEAN_BGR[::-1])
    scale = 1 / (255 * std)
    shift = (mean_rgb / 255 - torch.tensor(inputs.IMAGENET_MEAN_RGB)) / std
    return scale.view(1, 3, 1, 1), shift.view(1, 3, 1, 1)


def main():
    folder, device, precision, threads, how, *rest = sys.argv[1:]
    torch.set_flush_denormal(True)
    if int(threads) > 0:
        torch.set_num_threads(int(threads))
    given = inputs.Inputs(folder, device)
    compiled, mode = how != "eager", how if how in GRAPHS else None
    training = Training(given, precision, given.x, "one-pass" in rest, compiled, mode)
    given.weights = given.x = None
    checks = []
    for seed in given.dropout_seeds:
        torch.manual_seed(seed)
        checks.append(dict(zip(inputs.LOSSES, training.iteration())))
    for _ in range(WARM_UP if mode else 0):
        training.iteration()
    facts = {"precision": precision, "threads": torch.get_num_threads(), "compiled": compiled}
    if mode:
        facts["path"] = f"torch.compile, {mode}"
    facts["checks"] = checks
    worker.serve(facts, training.iteration, device)


if __name__ == "__main__":
    main()
