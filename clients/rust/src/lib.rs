//! What the generated stubs lack: who calls, and imports that outlive their connections.

mod identity;
mod importing;

pub use identity::{Connection, Identity};
pub use importing::Import;

/// The stubs, under the names of the protos: `stubs::soma::memory::v1`.
pub mod stubs {
    #![allow(clippy::all)]
    include!(concat!(env!("OUT_DIR"), "/stubs.rs"));
}
