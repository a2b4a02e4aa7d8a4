//! What is said with each number: how it was measured, and whose number it is.

use serde::Serialize;

/// A file of weights.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Weights {
    /// Its path, or where it is from.
    pub file: String,
    /// Digest of its bytes.
    pub blake3: String,
}

/// How a number was measured. Numbers compare where all of this is the same.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Protocol {
    /// What it is.
    pub definition: String,
    /// The program that gives the same number.
    pub equals: &'static str,
    /// The network, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weights: Vec<Weights>,
    /// How images become those of the network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resize: Option<String>,
    /// Deviation over subsets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deviation: Option<f64>,
    /// What else is to be known of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remark: Option<String>,
    /// Why there is no number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A number and how it was measured.
#[derive(Clone, Debug)]
pub struct Value {
    /// In JSON.
    pub key: &'static str,
    /// For people.
    pub label: &'static str,
    /// The number; none where there is a reason.
    pub value: Option<f64>,
    /// How it was measured.
    pub protocol: Protocol,
}

/// Digits of a digest that people see.
const SHOWN: usize = 16;

/// The reason of a number whose network the run was trained with.
pub const SHARED: &str = "shared: the run was trained with a network of this family";

impl Protocol {
    /// Adds what else is to be known of it.
    pub fn add_remark(&mut self, remark: String) {
        self.remark = Some(match self.remark.take() {
            Some(before) => format!("{before}; {remark}"),
            None => remark,
        });
    }

    /// In a line.
    pub fn text(&self) -> String {
        let mut parts = vec![self.definition.clone(), format!("equals {}", self.equals)];
        parts.extend(self.network.clone());
        parts.extend(self.weights.iter().map(|weights| {
            let digest: String = weights.blake3.chars().take(SHOWN).collect();
            format!("{} (blake3 {digest})", weights.file)
        }));
        parts.extend(self.resize.clone());
        parts.extend(
            self.deviation
                .map(|d| format!("deviation over subsets {d:.2e}")),
        );
        parts.extend(self.remark.clone());
        parts.extend(
            self.reason
                .as_ref()
                .map(|reason| format!("no number: {reason}")),
        );
        parts.join("; ")
    }
}
