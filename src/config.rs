//! placeholder
/// d
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// w
    Written,
    /// s
    Synced,
}
