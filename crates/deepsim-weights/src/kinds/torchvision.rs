//! Which of torchvision's networks a set of weights is.

use crate::tensor::NamedTensor;

/// Convolution: index into `features`, output and input channels, kernel side.
pub(super) type Conv = (usize, usize, usize, usize);
/// Fully connected layer: index into `classifier`, outputs, inputs.
type Fc = (usize, usize, usize);

/// The convolutions of AlexNet.
pub(super) const ALEXNET: [Conv; 5] = [
    (0, 64, 3, 11),
    (3, 192, 64, 5),
    (6, 384, 192, 3),
    (8, 256, 384, 3),
    (10, 256, 256, 3),
];

/// The convolutions of VGG16.
pub(super) const VGG16: [Conv; 13] = [
    (0, 64, 3, 3),
    (2, 64, 64, 3),
    (5, 128, 64, 3),
    (7, 128, 128, 3),
    (10, 256, 128, 3),
    (12, 256, 256, 3),
    (14, 256, 256, 3),
    (17, 512, 256, 3),
    (19, 512, 512, 3),
    (21, 512, 512, 3),
    (24, 512, 512, 3),
    (26, 512, 512, 3),
    (28, 512, 512, 3),
];

struct Network {
    name: &'static str,
    convolutions: &'static [Conv],
    classifier: [Fc; 3],
}

const NETWORKS: [Network; 2] = [
    Network {
        name: "AlexNet",
        convolutions: &ALEXNET,
        classifier: [(1, 4096, 9216), (4, 4096, 4096), (6, 1000, 4096)],
    },
    Network {
        name: "VGG16",
        convolutions: &VGG16,
        classifier: [(0, 4096, 25088), (3, 4096, 4096), (6, 1000, 4096)],
    },
];

/// The network whose keys and shapes these are exactly, in words.
pub(super) fn network(tensors: &[NamedTensor]) -> Option<String> {
    NETWORKS.iter().find_map(|network| {
        let convolutions = network.convolutions.iter().flat_map(|&(n, out, inp, k)| {
            let name = format!("features.{n}");
            [
                (format!("{name}.weight"), vec![out, inp, k, k]),
                (format!("{name}.bias"), vec![out]),
            ]
        });
        let classifier = network.classifier.iter().flat_map(|&(n, out, inp)| {
            let name = format!("classifier.{n}");
            [
                (format!("{name}.weight"), vec![out, inp]),
                (format!("{name}.bias"), vec![out]),
            ]
        });
        let parts = if tensors.len() == 2 * network.convolutions.len() {
            "convolutions only"
        } else {
            "whole"
        };
        let mut expected: Vec<(String, Vec<usize>)> = convolutions.collect();
        if parts == "whole" {
            expected.extend(classifier);
        }
        let holds = |(name, shape): &(String, Vec<usize>)| {
            let mut found = tensors.iter().filter(|t| t.name == *name);
            found.next().is_some_and(|t| t.shape == *shape)
        };
        let same = tensors.len() == expected.len() && expected.iter().all(holds);
        same.then(|| format!("torchvision's {}, {parts}", network.name))
    })
}
