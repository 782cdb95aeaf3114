//! What is wrong with a text, and where.

/// Something else stands in a file than must stand there.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}:{column}: expected {expected}, found `{found}`")]
pub struct Misplaced {
    /// The file.
    pub file: String,
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
    /// What should stand there.
    pub expected: String,
    /// What stands there.
    pub found: String,
}
