//! How hits travel from the edge to the spool.

/// Hits of one core and one turn of its loop.
#[derive(Debug)]
pub struct Parcel {
    /// The core that made it.
    pub core: usize,
    /// Its number among that core's parcels, from 1.
    pub number: u64,
    /// Its number of hits.
    pub count: u32,
    /// Their bytes.
    pub bytes: Vec<u8>,
}
