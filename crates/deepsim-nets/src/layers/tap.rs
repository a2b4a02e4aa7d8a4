//! Layers whose output can be taken as features, and combinations of them.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};

/// A layer whose output can be taken as features. "CONV5" of the DeePSiM paper is `pool5`,
/// "FC6" is `relu6`, "FC7" is `relu7`, "FC8" is `fc8` (logits, before the softmax).
///
/// Names are those of the networks' authors; [`crate::Net::rows_to`] says which network
/// has which. A network's table may name layers that no other network has.
///
/// Several layers of one shape make one tap: `block3+block7` is their sum, `mean(block3+block7)` their mean. In
/// either, and alone, `layernorm(block3)` is a layer whose channels are normalised at each position: minus their mean,
/// divided by √(variance + 1e-6), without weights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tap {
    name: &'static str,
    tokens: Tokens,
}

/// Which tokens of a transformer's layer are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tokens {
    /// Those of patches, as a map `[N,channels,height,width]`; class token and registers are dropped.
    #[default]
    Patches,
    /// All, `[N,channels,tokens,1]`: class token, registers, patches row by row.
    All,
}

/// A layer of a tap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapLayer {
    /// Its name in the network's table.
    pub name: &'static str,
    /// Whether its channels are normalised at each position.
    pub normalised: bool,
}

/// Names that no table has: of combinations that files name. Each is kept once, for as long as the process lives.
static COMBINED: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

impl Tap {
    /// The layer of this name, of whichever network has it, or a combination of layers.
    pub const fn named(name: &'static str) -> Tap {
        Tap {
            name,
            tokens: Tokens::Patches,
        }
    }

    /// The same with these tokens, where its layers are a transformer's.
    #[must_use]
    pub const fn with(self, tokens: Tokens) -> Tap {
        Tap { tokens, ..self }
    }

    /// The name as in experiment files.
    pub const fn name(self) -> &'static str {
        self.name
    }

    /// Which tokens are taken, where its layers are a transformer's.
    pub const fn tokens(self) -> Tokens {
        self.tokens
    }

    /// Its layers: one, or those that are summed or averaged.
    pub fn layers(self) -> Vec<TapLayer> {
        let body = within(self.name, "mean").unwrap_or(self.name);
        body.split('+').map(layer).collect()
    }

    /// Whether it is the mean of its layers, and not their sum.
    pub fn is_mean(self) -> bool {
        within(self.name, "mean").is_some()
    }

    /// Reads a tap whose layers are among `known`.
    ///
    /// # Errors
    /// The name that is none of them.
    pub(crate) fn parse(text: &str, known: &[&'static str]) -> Result<Tap, String> {
        if let Some(name) = known.iter().find(|name| **name == text) {
            return Ok(Tap::named(name));
        }
        let text = text.replace(' ', "");
        let body = within(&text, "mean").unwrap_or(&text);
        for term in body.split('+') {
            let name = within(term, "layernorm").unwrap_or(term);
            if !known.contains(&name) {
                return Err(name.to_owned());
            }
        }
        let mut combined = COMBINED.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = combined.get(text.as_str()).copied();
        let name = kept.unwrap_or_else(|| {
            let name: &'static str = text.leak();
            combined.insert(name);
            name
        });
        Ok(Tap::named(name))
    }
}

/// What stands in the parentheses of `CALL(…)`.
fn within<'a>(text: &'a str, call: &str) -> Option<&'a str> {
    text.strip_prefix(call)?
        .strip_prefix('(')?
        .strip_suffix(')')
}

fn layer(term: &'static str) -> TapLayer {
    let normalised = within(term, "layernorm");
    TapLayer {
        name: normalised.unwrap_or(term),
        normalised: normalised.is_some(),
    }
}

macro_rules! taps {
    ($($tap:ident = $name:literal),* $(,)?) => {
        #[allow(missing_docs, non_upper_case_globals)]
        impl Tap { $(pub const $tap: Tap = Tap::named($name);)* }
    };
}
taps! {
    // CaffeNet, VideoNet, AlexNet; pooling and fully connected layers also of VGG16.
    Conv1 = "conv1", Relu1 = "relu1", Pool1 = "pool1", Norm1 = "norm1",
    Conv2 = "conv2", Relu2 = "relu2", Pool2 = "pool2", Norm2 = "norm2",
    Conv3 = "conv3", Relu3 = "relu3", Pool3 = "pool3",
    Conv4 = "conv4", Relu4 = "relu4", Pool4 = "pool4",
    Conv5 = "conv5", Relu5 = "relu5", Pool5 = "pool5",
    Fc6 = "fc6", Relu6 = "relu6", Fc7 = "fc7", Relu7 = "relu7", Fc8 = "fc8",
    // VGG16, VGG19
    Conv1_1 = "conv1_1", Relu1_1 = "relu1_1", Conv1_2 = "conv1_2", Relu1_2 = "relu1_2",
    Conv2_1 = "conv2_1", Relu2_1 = "relu2_1", Conv2_2 = "conv2_2", Relu2_2 = "relu2_2",
    Conv3_1 = "conv3_1", Relu3_1 = "relu3_1", Conv3_2 = "conv3_2", Relu3_2 = "relu3_2",
    Conv3_3 = "conv3_3", Relu3_3 = "relu3_3",
    Conv4_1 = "conv4_1", Relu4_1 = "relu4_1", Conv4_2 = "conv4_2", Relu4_2 = "relu4_2",
    Conv4_3 = "conv4_3", Relu4_3 = "relu4_3",
    Conv5_1 = "conv5_1", Relu5_1 = "relu5_1", Conv5_2 = "conv5_2", Relu5_2 = "relu5_2",
    Conv5_3 = "conv5_3", Relu5_3 = "relu5_3",
    // EfficientNet-Lite0; blocks also of transformers
    Stem = "stem",
    Block0 = "block0", Block1 = "block1", Block2 = "block2", Block3 = "block3",
    Block4 = "block4", Block5 = "block5", Block6 = "block6", Block7 = "block7",
    Block8 = "block8", Block9 = "block9", Block10 = "block10", Block11 = "block11",
    Block12 = "block12", Block13 = "block13", Block14 = "block14", Block15 = "block15",
    Head = "head", Pooled = "pooled", Logits = "logits",
    // Normalisation at a network's end
    Norm = "norm",
}

impl std::fmt::Display for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)?;
        match self.tokens {
            Tokens::Patches => Ok(()),
            Tokens::All => f.write_str(" (all tokens)"),
        }
    }
}

impl Serialize for Tap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: [&str; 3] = ["block1", "block2", "norm"];

    #[test]
    fn combinations_are_read_and_equal_ones_are_the_same() {
        let tap = Tap::parse("mean(block1 + layernorm(block2))", &KNOWN).unwrap();
        assert!(tap.is_mean());
        let layers = tap.layers();
        let named = |l: &TapLayer| (l.name, l.normalised);
        let found: Vec<_> = layers.iter().map(named).collect();
        assert_eq!(found, [("block1", false), ("block2", true)]);
        let again = Tap::parse("mean(block1+layernorm(block2))", &KNOWN).unwrap();
        assert_eq!(tap, again);
        assert_ne!(tap, again.with(Tokens::All));
        let sum = Tap::parse("block1+block2", &KNOWN).unwrap();
        assert!(!sum.is_mean() && sum.layers().len() == 2);
        assert_eq!(Tap::parse("norm", &KNOWN).unwrap().layers()[0].name, "norm");
    }

    #[test]
    fn what_is_no_layer_is_named() {
        for (text, unknown) in [
            ("block3", "block3"),
            ("block1+block3", "block3"),
            ("block1+", ""),
            ("mean(block1", "mean(block1"),
            ("mean()", ""),
            ("layernorm(mean(block1))", "mean(block1)"),
            ("sum(block1+block2)", "sum(block1"),
        ] {
            assert_eq!(Tap::parse(text, &KNOWN).unwrap_err(), unknown, "{text}");
        }
    }
}
