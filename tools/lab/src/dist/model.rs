//! A model of what a training step costs on several devices, as functions of numbers: [`super::forecast`] has the numbers.
//!
//! Every device computes its part of the batch. Then the gradients of all are summed by a ring: each device sends and
//! receives 2(W−1)/W of their bytes in 2(W−1) messages. Nothing overlaps, as in the trainer. Images are read meanwhile.

use serde::Serialize;

/// What the training of a network asks for, on any device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Load {
    /// Floating-point operations of a step, over the whole batch.
    pub flop: f64,
    /// Bytes of the gradients that a step sums over all devices.
    pub bytes: f64,
    /// Sums of a step: one for each pass back.
    pub sums: f64,
    /// Images of a step.
    pub images: f64,
    /// Steps.
    pub steps: f64,
}

/// Devices that train together, and what is between them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cluster {
    /// How many devices.
    pub devices: u32,
    /// Floating-point operations that a device does in a second of this work.
    pub rate: f64,
    /// Bytes that a device sends in a second, while it receives as many.
    pub bandwidth: f64,
    /// Seconds that a message takes besides.
    pub latency: f64,
    /// Images that all hosts together read and decode in a second.
    pub images_per_s: f64,
}

/// A step, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Computing.
    pub compute_s: f64,
    /// Summing gradients.
    pub exchange_s: f64,
    /// Reading the images, beside both.
    pub data_s: f64,
}

impl Step {
    /// What the step takes.
    pub fn seconds(&self) -> f64 {
        (self.compute_s + self.exchange_s).max(self.data_s)
    }

    /// The share of the step in which the devices compute.
    pub fn efficiency(&self) -> f64 {
        self.compute_s / self.seconds()
    }
}

/// A step of this work on these devices.
pub fn step(load: &Load, cluster: &Cluster) -> Step {
    let w = f64::from(cluster.devices.max(1));
    Step {
        compute_s: load.flop / cluster.rate / w,
        exchange_s: 2.0 * (w - 1.0) / w * load.bytes / cluster.bandwidth
            + 2.0 * (w - 1.0) * cluster.latency * load.sums,
        data_s: load.images / cluster.images_per_s,
    }
}

/// When the last of these works ends, each done by one of so many devices: the longest first, each by the device that is
/// free first.
pub fn side_by_side(seconds: &[f64], devices: u32) -> f64 {
    let mut works = seconds.to_vec();
    works.sort_by(|a, b| b.total_cmp(a));
    let mut busy = vec![0.0_f64; usize::try_from(devices.max(1)).unwrap_or(1)];
    for work in works {
        if let Some(free) = busy.iter_mut().min_by(|a, b| a.total_cmp(b)) {
            *free += work;
        }
    }
    busy.into_iter().fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOAD: Load = Load {
        flop: 1e12,
        bytes: 2e8,
        sums: 2.0,
        images: 64.0,
        steps: 1e6,
    };
    const ALONE: Cluster = Cluster {
        devices: 1,
        rate: 1e14,
        bandwidth: 1e11,
        latency: 1e-5,
        images_per_s: 1e6,
    };

    fn on(devices: u32) -> Step {
        let cluster = Cluster { devices, ..ALONE };
        step(&LOAD, &cluster)
    }

    #[test]
    fn one_device_exchanges_nothing() {
        let one = on(1);
        assert_eq!((one.compute_s, one.exchange_s), (0.01, 0.0));
        assert_eq!((one.seconds(), one.efficiency()), (0.01, 1.0));
        assert_eq!(on(0), one);
    }

    #[test]
    fn a_ring_sends_nearly_twice_the_bytes_and_pays_for_every_message() {
        let two = on(2);
        assert!((two.compute_s - 0.005).abs() < 1e-15);
        // All bytes once, and two messages of 10 µs in each of two sums.
        assert!((two.exchange_s - (2e-3 + 4e-5)).abs() < 1e-15);
        let many = on(64);
        assert!((many.exchange_s - (126.0 / 64.0 * 2e-3 + 126.0 * 2e-5)).abs() < 1e-15);
        assert!((many.seconds() - many.compute_s - many.exchange_s).abs() < 1e-15);
        assert!(many.efficiency() < two.efficiency() && two.efficiency() < 1.0);
    }

    #[test]
    fn slow_images_are_waited_for() {
        let slow = Cluster {
            images_per_s: 640.0,
            ..ALONE
        };
        let found = step(&LOAD, &slow);
        assert_eq!((found.seconds(), found.data_s), (0.1, 0.1));
        assert!((found.efficiency() - 0.1).abs() < 1e-12);
    }

    #[test]
    fn works_side_by_side_end_with_the_last() {
        assert_eq!(side_by_side(&[3.0, 1.0, 2.0], 1), 6.0);
        assert_eq!(side_by_side(&[3.0, 1.0, 2.0], 2), 3.0);
        assert_eq!(side_by_side(&[3.0, 1.0, 2.0], 8), 3.0);
        assert_eq!(side_by_side(&[], 4), 0.0);
    }
}
