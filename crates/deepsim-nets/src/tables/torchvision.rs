//! Networks of torchvision.

use super::{Op, Rounding, Row, Tap, conv, fc, max_pool};

const POOL_3: Op = max_pool(3, 2, Rounding::Floor);
const POOL_2: Op = max_pool(2, 2, Rounding::Floor);

/// torchvision's AlexNet ("One weird trick", Krizhevsky 2014). Sizes are for 224×224 pictures.
pub const ALEXNET: &[Row] = &[
    (Tap::Conv1, conv("features.0", (3, 64), (11, 4, 2), 1)), // 55
    (Tap::Relu1, Op::Relu),
    (Tap::Pool1, POOL_3),                                      // 27
    (Tap::Conv2, conv("features.3", (64, 192), (5, 1, 2), 1)), // 27
    (Tap::Relu2, Op::Relu),
    (Tap::Pool2, POOL_3),                                       // 13
    (Tap::Conv3, conv("features.6", (192, 384), (3, 1, 1), 1)), // 13
    (Tap::Relu3, Op::Relu),
    (Tap::Conv4, conv("features.8", (384, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu4, Op::Relu),
    (Tap::Conv5, conv("features.10", (256, 256), (3, 1, 1), 1)), // 13
    (Tap::Relu5, Op::Relu),
    (Tap::Pool5, POOL_3), // 6
    (Tap::Fc6, fc("classifier.1", 9216, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("classifier.4", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("classifier.6", 4096, 1000)),
];

/// torchvision's VGG16 (Simonyan & Zisserman 2014, configuration D). Sizes are for 224×224 pictures.
pub const VGG16: &[Row] = &[
    (Tap::Conv1_1, conv("features.0", (3, 64), (3, 1, 1), 1)), // 224
    (Tap::Relu1_1, Op::Relu),
    (Tap::Conv1_2, conv("features.2", (64, 64), (3, 1, 1), 1)),
    (Tap::Relu1_2, Op::Relu),
    (Tap::Pool1, POOL_2),                                        // 112
    (Tap::Conv2_1, conv("features.5", (64, 128), (3, 1, 1), 1)), // 112
    (Tap::Relu2_1, Op::Relu),
    (Tap::Conv2_2, conv("features.7", (128, 128), (3, 1, 1), 1)),
    (Tap::Relu2_2, Op::Relu),
    (Tap::Pool2, POOL_2),                                          // 56
    (Tap::Conv3_1, conv("features.10", (128, 256), (3, 1, 1), 1)), // 56
    (Tap::Relu3_1, Op::Relu),
    (Tap::Conv3_2, conv("features.12", (256, 256), (3, 1, 1), 1)),
    (Tap::Relu3_2, Op::Relu),
    (Tap::Conv3_3, conv("features.14", (256, 256), (3, 1, 1), 1)),
    (Tap::Relu3_3, Op::Relu),
    (Tap::Pool3, POOL_2),                                          // 28
    (Tap::Conv4_1, conv("features.17", (256, 512), (3, 1, 1), 1)), // 28
    (Tap::Relu4_1, Op::Relu),
    (Tap::Conv4_2, conv("features.19", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu4_2, Op::Relu),
    (Tap::Conv4_3, conv("features.21", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu4_3, Op::Relu),
    (Tap::Pool4, POOL_2),                                          // 14
    (Tap::Conv5_1, conv("features.24", (512, 512), (3, 1, 1), 1)), // 14
    (Tap::Relu5_1, Op::Relu),
    (Tap::Conv5_2, conv("features.26", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu5_2, Op::Relu),
    (Tap::Conv5_3, conv("features.28", (512, 512), (3, 1, 1), 1)),
    (Tap::Relu5_3, Op::Relu),
    (Tap::Pool5, POOL_2), // 7
    (Tap::Fc6, fc("classifier.0", 25088, 4096)),
    (Tap::Relu6, Op::Relu),
    (Tap::Fc7, fc("classifier.3", 4096, 4096)),
    (Tap::Relu7, Op::Relu),
    (Tap::Fc8, fc("classifier.6", 4096, 1000)),
];
