//! A whole request in memory: bytes in, hyper, the edge, the spool on disk, bytes out.

mod in_memory;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(1));
    let mut in_memory = in_memory::InMemory::new();
    group.bench_function("to spool and answered", |bencher| bencher.iter(|| in_memory.requests(1)));
    group.finish();
}

criterion_group!(benches, requests);
criterion_main!(benches);
