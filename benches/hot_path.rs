//! The parts of a request's path, one by one.

use std::hint::black_box;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ipnet::IpNet;
use pixeld::parts::ingest::copy::{self, Row};
use pixeld::parts::ingest::judge::{Bounds, Facts, ImageThen, Judging, UserAgent};
use pixeld::parts::ingest::throttle::Throttle;
use pixeld_core::clock::micros::Micros;
use pixeld_core::clock::now_micros;
use pixeld_core::hit::Hit;
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};
use pixeld_core::link::key::{Key, Namespace};
use pixeld_core::link::make::{self, Names};
use pixeld_core::link::route::route;
use pixeld_core::link::token::SigningKeys;
use pixeld_core::networks::{Network, Networks};
use pixeld_core::opens::agent::Agent;
use pixeld_core::opens::classify::{Evidence, classify};
use pixeld_core::privacy::{PrivacyKey, Suppression};
use pixeld_edge::images::{Image, ImageCache, TRANSPARENT_GIF};
use pixeld_edge::limits::{Limits, Sketch};
use pixeld_edge::suppressed::Suppressed;
use pixeld_spool::frame::{self, FrameKey};
use uuid::Uuid;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// When the first hit was answered.
const NOW: Micros = Micros::of_seconds(1_800_000_000);

const IMAGE: ImageId = ImageId::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_0009);
const RECIPIENT: RecipientId = RecipientId::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_000a);
const NAMESPACE: Namespace = Namespace(Uuid::from_u128(9));
const USER_AGENT: &str = "Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)";

/// Hits in a frame and in a batch of these benches.
const HITS: u32 = 1000;

/// Judges as the loader does once it has learnt a batch.
struct AllKnown {
    agent: Agent,
}

impl Facts for AllKnown {
    fn had_opted_out(&self, _: RecipientId, _: Micros) -> bool {
        false
    }

    fn image(&self, _: ImageId, _: Micros) -> ImageThen {
        ImageThen::There
    }

    fn user_agent(&self, _: &str) -> UserAgent {
        UserAgent { own: 5, stored: 5, agent: self.agent }
    }

    fn sent_at_s(&self, _: MessageId) -> u32 {
        0
    }
}

fn hit(number: u64) -> Hit<'static> {
    Hit {
        at: NOW + Duration::from_micros(number),
        sent_at_s: 0,
        image: IMAGE,
        message: MessageId::from_u128(7),
        recipient: RecipientId::of(Uuid::from_u64_pair(8, number + 1)),
        network: 0,
        prefetch: false,
        address: Some(IpAddr::from([66, 249, 84, number as u8])),
        keys: None,
        is_erased: false,
        user_agent: USER_AGENT,
    }
}

fn encoded(count: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    (0..u64::from(count)).for_each(|number| hit(number).encode(&mut bytes));
    bytes
}

fn edge(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("edge");
    let keys = SigningKeys::parse("1:AAECAwQFBgcICQoLDA0ODw==").expect("keys");
    let names = |keys: &SigningKeys, recipient: &str| {
        let names = Names {
            image: IMAGE,
            message: Some("may-news"),
            recipient: Some(recipient),
            sent_at_s: 0,
            extension: "gif",
        };
        make::path(&names, NAMESPACE, keys).expect("a link")
    };
    let path = format!("/image/{IMAGE}_{}_{}.gif", Uuid::from_u128(7), Uuid::from_u128(8));
    let (keyed, signed) = (names(&SigningKeys::default(), "4711"), names(&keys, "4711"));
    group.bench_function("path parsing", |bencher| bencher.iter(|| route(black_box(&path), &keys)));
    group.bench_function("path parsing, keyed", |bencher| bencher.iter(|| route(black_box(&keyed), &keys)));
    group.bench_function("path parsing, signed", |bencher| bencher.iter(|| route(black_box(&signed), &keys)));
    let key = Key::typed("4711").expect("a key");
    group.bench_function("id of a key", |bencher| bencher.iter(|| NAMESPACE.id_of::<RecipientId>(black_box(&key))));
    // As many as in Apple's list, neighbours joined.
    let prefixes: Vec<_> =
        (0..7000_u32).map(|n| (IpNet::from(IpAddr::from((n << 18 | 77).to_be_bytes())), Network::Apple)).collect();
    let networks = Networks::new(&prefixes);
    let mut address = 0_u32;
    group.bench_function("network of an address, 7,000 ranges", |bencher| {
        bencher.iter(|| {
            address = address.wrapping_add(0x9e37_79b9);
            networks.of(IpAddr::from(address.to_be_bytes()))
        });
    });
    group.finish();
}

/// What the edge reads from its memory, and writes there.
fn memory(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("edge");
    let (images, _wanted) = ImageCache::new(1 << 30);
    for id in 0..10_000 {
        let id = if id == 0 { IMAGE } else { ImageId::from_u128(id) };
        images.note_known(id, Micros(1));
        images.put(id, Micros(1), Arc::new(Image::new(Bytes::from_static(TRANSPARENT_GIF), "image/gif")));
    }
    group.bench_function("image look-up", |bencher| bencher.iter(|| images.lookup(black_box(IMAGE))));

    let suppressed = Suppressed::default();
    group.bench_function("opt-outs, nobody", |bencher| bencher.iter(|| suppressed.is_out(black_box(RECIPIENT))));
    let key = PrivacyKey([7; 32]);
    let out = |id| Suppression::out_since_ever(key.hash(RecipientId::from_u128(id)));
    let rows: Vec<Suppression> = (1..=100_000).map(out).collect();
    suppressed.recall(key, &rows);
    group
        .bench_function("opt-outs, 100,000 people", |bencher| bencher.iter(|| suppressed.is_out(black_box(RECIPIENT))));

    let (limits, sketch) = (Limits::new(NonZeroU32::new(1000), 1), Sketch::default());
    let mut number = 0_u32;
    group.bench_function("address rate, many quiet addresses", |bencher| {
        bencher.iter(|| {
            number = number.wrapping_add(1);
            if number.is_multiple_of(100_000) {
                sketch.clear();
            }
            limits.allows(&sketch, IpAddr::from(number.to_be_bytes()), None)
        });
    });

    let (mut out, one) = (Vec::with_capacity(1 << 20), hit(1));
    group.bench_function("hit encoding", |bencher| {
        bencher.iter(|| {
            if out.len() > 1 << 19 {
                out.clear();
            }
            black_box(&one).encode(&mut out);
        });
    });
    group.bench_function("clock", |bencher| bencher.iter(now_micros));
    group.finish();
}

fn spool(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("spool, 1000 hits");
    group.throughput(Throughput::Elements(u64::from(HITS)));
    let (key, payload) = (FrameKey::of(SpoolId::from_u128(1)), encoded(HITS));
    let mut out = Vec::with_capacity(payload.len() + 64);
    group.bench_function("frame write", |bencher| {
        bencher.iter(|| {
            out.clear();
            let start = frame::begin(&mut out);
            out.extend_from_slice(black_box(&payload));
            frame::finish(&mut out, start, key, 0, HITS);
        });
    });
    group.bench_function("frame read", |bencher| {
        bencher.iter(|| {
            let frame = frame::decode(key, black_box(&out)).expect("it was written");
            let (mut rest, mut hits) = (frame.payload, 0);
            while let Ok((_, behind)) = Hit::decode(rest) {
                rest = behind;
                hits += 1;
            }
            assert_eq!(hits, HITS);
        });
    });
    group.finish();
}

fn load(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("load, 1000 hits");
    group.throughput(Throughput::Elements(u64::from(HITS)));
    let hits: Vec<Hit<'_>> = (0..u64::from(HITS)).map(hit).collect();
    let mut out = BytesMut::new();
    group.bench_function("COPY encoding", |bencher| {
        bencher.iter(|| {
            out.clear();
            copy::begin(&mut out);
            for (seq, hit) in hits.iter().enumerate() {
                let row = Row {
                    at: hit.at,
                    seq: seq as i64,
                    user_agent: 5,
                    sent_at_s: 0,
                    message: hit.message,
                    recipient: hit.recipient,
                    image: hit.image,
                    spool: 1,
                    class: 0,
                    rule: 0,
                    network: 0,
                    prefetch: false,
                    address: hit.address,
                    client: 0,
                };
                copy::put(&mut out, &row);
            }
            copy::end(&mut out);
        });
    });
    group.bench_function("reading a user agent", |bencher| bencher.iter(|| Agent::read(black_box(USER_AGENT))));
    let evidence = Evidence { agent: Agent::read(USER_AGENT), network: None, prefetch: false, since_sent_s: Some(100) };
    group.bench_function("classifying", |bencher| bencher.iter(|| classify(black_box(&evidence))));
    let throttle = Throttle::new(Duration::from_secs(3600), [7; 16]);
    let facts = AllKnown { agent: Agent::read(USER_AGENT) };
    let bounds = Bounds { now: NOW, built_at: Micros(0), retention: None };
    group.bench_function("judging with the throttle", |bencher| {
        bencher.iter(|| {
            let mut judging = Judging::new(black_box(&hits), 0, 1, bounds, Some(&throttle), &facts);
            while judging.next_rows().is_some() {}
            judging.finish()
        });
    });
    group.finish();
}

criterion_group!(benches, edge, memory, spool, load);
criterion_main!(benches);
