//! Generates the stubs from `protos/`, by the protoc that a crate brings.

use std::{error::Error, path::PathBuf};

const AREAS: [&str; 3] = ["batch/v1/batch_service", "graph/v1/graph_service", "memory/v1/memory_service"];

fn main() -> Result<(), Box<dyn Error>> {
    let protos = PathBuf::from("../../protos");
    let files: Vec<_> = AREAS.iter().map(|area| protos.join(format!("soma/{area}.proto"))).collect();
    let mut config = tonic_prost_build::Config::new();
    config.protoc_executable(protoc_bin_vendored::protoc_bin_path()?);
    tonic_prost_build::configure().build_server(false).include_file("stubs.rs").compile_with_config(
        config,
        &files,
        &[protos, protoc_bin_vendored::include_path()?],
    )?;
    Ok(())
}
