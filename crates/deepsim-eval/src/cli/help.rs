//! Examples and explanations below the options of `--help`, of the commands with long ones.

/// Of `figure`.
pub const FIGURE: &str = "\
Example, after `cargo xtask quickstart` (more runs give more panels):
  cargo run -p deepsim-eval -- figure 1 --out figures

1 components of the loss · 3 layers · 4 beside other methods · 5 re-encoding ·
6 comparators · 7 interpolation · 8 samples of variational autoencoders. Runs
are chosen by what their experiment says, not by name: of several that would
do, the longest trained with the plainest name. stdout lists them; stderr says
what is missing and which experiment file makes it. (2 is a diagram.)";

/// Of `interpolate`.
pub const INTERPOLATE: &str = "\
Example, after `cargo xtask quickstart`, of two photos of yours:
  cargo run -p deepsim-eval -- interpolate a.jpg b.jpg --steps 24 \\
      --runs runs/quickstart

Writes OUT/RUN/frame-000.png …, strip.png (the photos at both ends) and
animation.png (an animated PNG: browsers play it). A step is the root mean
squared change of pixels from one frame to the next; the largest over the mean
says how smooth it is.";

/// Of `sample`.
pub const SAMPLE: &str = "\
Example, after `cargo xtask reproduce --only sample-vae` (trains, minutes each):
  cargo run -p deepsim-eval -- sample --out samples

Draws codes from a standard normal distribution and decodes them, for every run
with Gaussian codes ([latent] in its experiment). Prints the divergence of the
codes, errors and sharpness, and the distance of samples and held-out photos as
distributions, in EfficientNet-Lite0's features.";

/// Of `preimages`.
pub const PREIMAGES: &str = "\
Example, after `cargo xtask reproduce --only sample-noise,sample-diverse`
(trains, minutes each):
  cargo run -p deepsim-eval -- preimages runs/sample-noise runs/sample-diverse

Takes runs whose generator takes noise beside the features (generator.noise).
The sheet shows photographs, their pictures with the noise at zero, several
draws, and where those differ. Prints the spread of the draws and whether each
still has the features.";

/// Of `attributes`.
pub const ATTRIBUTES: &str = "\
Example, after `cargo xtask reproduce --only faces-vaegan` (trains, minutes):
  cargo run -p deepsim-eval -- attributes runs/faces-vaegan \\
      --labels data/labels/orl.csv

A vector is the mean code of the training pictures with an attribute minus that
of those without it. The sheet shows held-out pictures, their reconstructions,
and what the vector does to them. A linear probe says how well the attribute
can be read from codes, and whether it can be read from the changed pictures.

Labels are CelebA's list_attr_celeba.txt, LFW's lfw_attributes.txt, or a CSV
file with the header `name,ATTRIBUTE,...` and 1, 0 or nothing for each picture,
whose names end as in the dataset.";

/// Of `losses`.
pub const LOSSES: &str = "\
Example, after `cargo xtask reproduce --only sample-sr` (trains, minutes each):
  cargo run -p deepsim-eval -- losses --out losses

Judges every autoencoder with plain codes and every super-resolution run
(encoder \"downsampled\") by all metrics, and puts their pictures on one sheet
for each task: experiments/sample/ae-*.toml and sr-*.toml.";

/// Of `invert`.
pub const INVERT: &str = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- invert photo.jpg --out pictures
  cargo run -p deepsim-eval -- invert data/photos/categorization/fish12.webp

With released weights that were imported (`deepsim-nets import caffemodel`):
  cargo run -p deepsim-eval -- invert photo.jpg \\
      --experiment experiments/fc6.toml --weights generator-fc6.safetensors";

/// Of `decode`.
pub const DECODE: &str = "\
Example, of recorded features (docs/guide/your-own-representation.md records
256 numbers for each sample photo and trains runs/sample-recorded):
  cargo run -p deepsim-eval -- decode data/responses.safetensors \\
      --run runs/sample-recorded --out pictures

With released weights that were imported (`deepsim-nets import caffemodel`):
  cargo run -p deepsim-eval -- decode fc6.safetensors \\
      --experiment experiments/fc6.toml --weights generator-fc6.safetensors";

/// Of `forward`.
pub const FORWARD: &str = "\
Examples, after `cargo xtask quickstart`; photos.safetensors has a tensor `x`
of RGB images, [N,3,128,128], 0-255:
  cargo run -p deepsim-eval -- forward experiments/quickstart.toml \\
      --net encoder --input photos.safetensors --output features.safetensors
The generator takes features under the key `x` (save `y` of the file above
again as `x`):
  cargo run -p deepsim-eval -- forward experiments/quickstart.toml \\
      --net generator --input x.safetensors --output images.safetensors";

/// Of `report`.
pub const REPORT: &str = "\
Examples, after `cargo xtask quickstart`:
  cargo run -p deepsim-eval -- report
  cargo run -p deepsim-eval -- report --runs runs/quickstart --out one.html
  cargo run -p deepsim-eval -- report --photos 12 --images 256 --out pages

Table 2 beside the paper's, loss curves and the gate, photo and reconstruction
with a slider, players of interpolation and re-encoding, nearest training
photos, and the command that made each. The page opens from disk, needs no
network and no other file. What cannot be made says why on the page. stdout is
the page's path.";
