//! The closed lists of metric labels: why a hit was dropped, how a request ended, which task ended.

/// A closed list of labels.
macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $label:literal),* $(,)? }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant),* }

        impl $name {
            /// All of them, in order.
            pub const ALL: &[$name] = &[$($name::$variant),*];

            /// The name in the metrics.
            pub fn label(self) -> &'static str {
                match self { $($name::$variant => $label),* }
            }
        }
    };
}

labelled! {
    /// Why an accepted hit was dropped.
    DropReason {
        /// The client address exceeded `PIXELD_ADDRESS_RATE`.
        AddressRate = "address_rate",
        /// The queue in memory was full.
        QueueFull = "queue_full",
        /// The spool reached `PIXELD_SPOOL_BYTES_MAX`.
        SpoolFull = "spool_full",
        /// The file system had no room.
        DiskFull = "disk_full",
        /// The disk refused the write for another reason.
        DiskError = "disk_error",
        /// Its recipient had opted out.
        Suppressed = "suppressed",
        /// The same hit was recorded within `PIXELD_THROTTLE`.
        Throttled = "throttled",
        /// PostgreSQL has no such image; the edge had no list yet.
        UnknownImage = "unknown_image",
        /// Older than `PIXELD_RETENTION_DAYS` when it was loaded.
        Expired = "expired",
        /// PostgreSQL refused the row; its bytes were quarantined.
        Quarantined = "quarantined",
        /// Its bytes on disk were damaged; they were quarantined.
        Damaged = "damaged",
        /// Its recipient was erased before it was loaded.
        Erased = "erased",
    }
}

impl DropReason {
    /// Whether it means that this node does not record now: hits cannot get from memory to the disk.
    pub fn stops_recording(self) -> bool {
        use DropReason::{DiskError, DiskFull, QueueFull, SpoolFull};
        matches!(self, QueueFull | SpoolFull | DiskFull | DiskError)
    }
}

labelled! {
    /// How a request on the public listener ended.
    Outcome {
        /// 200 with the stored image.
        Image = "image",
        /// 200 with the transparent GIF, since the image was not available in time.
        Fallback = "fallback",
        /// 304.
        NotModified = "not_modified",
        /// 200 with the transparent GIF of a deleted image.
        Deleted = "deleted",
        /// 200 with the image; the message or recipient was not a valid id.
        Malformed = "malformed",
        /// 200 with the image; a merge tag was left in the link.
        Unmerged = "unmerged",
        /// 200 with the image; the link is not signed, and `PIXELD_REQUIRE_SIGNED` is on.
        Unsigned = "unsigned",
        /// 404 with the GIF: a token that we did not sign.
        Forged = "forged",
        /// 404 with the GIF: an unknown or malformed image id.
        UnknownImage = "unknown_image",
        /// 404 with the GIF: no such path.
        NotFound = "not_found",
        /// 405.
        MethodNotAllowed = "method_not_allowed",
        /// 413: a GET with a body.
        BodyRefused = "body_refused",
        /// 400, with the GIF if a path was found: the request is not HTTP.
        Unreadable = "unreadable",
        /// 431 or 414, with the GIF: the request's head is too long.
        TooLarge = "too_large",
        /// `/healthz`.
        Health = "health",
    }
}

labelled! {
    /// The long-running tasks of `pixeld serve`. `app::supervise` says what happens when one ends.
    Task {
        /// A core of the public listener.
        EdgeCore = "edge_core",
        /// Hits from memory to the spool.
        Writer = "writer",
        /// Hits from the spool to PostgreSQL.
        Loader = "loader",
        /// Erasures on this node's disk.
        Eraser = "eraser",
        /// Room on the disk, and loaded segments.
        Housekeeper = "housekeeper",
        /// The connection to PostgreSQL, and the private one's process.
        Database = "database",
        /// The existing images, and their bytes.
        Images = "images",
        /// Opens and counts.
        Rollup = "rollup",
        /// Deletes what is older than `PIXELD_RETENTION_DAYS`.
        Retention = "retention",
        /// The opt-outs.
        OptOuts = "opt_outs",
        /// The namespace of keys.
        Namespace = "namespace",
        /// Lists of networks.
        Networks = "networks",
        /// The private listener.
        Admin = "admin",
        /// Gauges, and addresses that became quiet.
        Cleaning = "cleaning",
        /// Notifications to systemd.
        Systemd = "systemd",
    }
}
