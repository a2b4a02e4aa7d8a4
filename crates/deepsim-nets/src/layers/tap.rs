//! Layers whose output can be taken as features.

use serde::{Serialize, Serializer};

/// A layer whose output can be taken as features. "CONV5" of the DeePSiM paper is `pool5`,
/// "FC6" is `relu6`, "FC7" is `relu7`, "FC8" is `fc8` (logits, before the softmax).
///
/// Names are those of the networks' authors; [`crate::NetKind::rows_to`] says which network
/// has which. A network's table may name layers that no other network has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tap(&'static str);

impl Tap {
    /// The layer of this name, of whichever network has it.
    pub const fn named(name: &'static str) -> Tap {
        Tap(name)
    }

    /// The name as in experiment files.
    pub const fn name(self) -> &'static str {
        self.0
    }
}

macro_rules! taps {
    ($($tap:ident = $name:literal),* $(,)?) => {
        #[allow(missing_docs, non_upper_case_globals)]
        impl Tap { $(pub const $tap: Tap = Tap($name);)* }
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
    // VGG16
    Conv1_1 = "conv1_1", Relu1_1 = "relu1_1", Conv1_2 = "conv1_2", Relu1_2 = "relu1_2",
    Conv2_1 = "conv2_1", Relu2_1 = "relu2_1", Conv2_2 = "conv2_2", Relu2_2 = "relu2_2",
    Conv3_1 = "conv3_1", Relu3_1 = "relu3_1", Conv3_2 = "conv3_2", Relu3_2 = "relu3_2",
    Conv3_3 = "conv3_3", Relu3_3 = "relu3_3",
    Conv4_1 = "conv4_1", Relu4_1 = "relu4_1", Conv4_2 = "conv4_2", Relu4_2 = "relu4_2",
    Conv4_3 = "conv4_3", Relu4_3 = "relu4_3",
    Conv5_1 = "conv5_1", Relu5_1 = "relu5_1", Conv5_2 = "conv5_2", Relu5_2 = "relu5_2",
    Conv5_3 = "conv5_3", Relu5_3 = "relu5_3",
    // EfficientNet-Lite0
    Stem = "stem",
    Block0 = "block0", Block1 = "block1", Block2 = "block2", Block3 = "block3",
    Block4 = "block4", Block5 = "block5", Block6 = "block6", Block7 = "block7",
    Block8 = "block8", Block9 = "block9", Block10 = "block10", Block11 = "block11",
    Block12 = "block12", Block13 = "block13", Block14 = "block14", Block15 = "block15",
    Head = "head", Pooled = "pooled", Logits = "logits",
}

impl std::fmt::Display for Tap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

impl Serialize for Tap {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(self.name())
    }
}
