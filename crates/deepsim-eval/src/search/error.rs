//! What can be wrong with a search for nearest neighbours.

use deepsim_nets::NetError;

/// Why nearest neighbours could not be found.
#[derive(Debug, thiserror::Error)]
pub enum SearchError {
    /// libtorch, or a tensor of the wrong shape.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A row with a value that is not a number or infinite.
    #[error("{what}: row {row} holds NaN or infinity")]
    NotFinite {
        /// Which rows.
        what: &'static str,
        /// The first such row, counted from 0.
        row: u64,
    },
    /// Rows that cannot be read.
    #[error("rows of features: {0}")]
    Rows(std::io::Error),
    /// What no search can be made of.
    #[error("{0}")]
    Settings(String),
}

/// Result of a search.
pub type Result<T> = std::result::Result<T, SearchError>;

impl From<tch::TchError> for SearchError {
    fn from(error: tch::TchError) -> Self {
        NetError::from(error).into()
    }
}

impl From<deepsim_aten::AtenError> for SearchError {
    fn from(error: deepsim_aten::AtenError) -> Self {
        NetError::from(error).into()
    }
}
