//! The whole path of a request in one thread and without a socket: a client's bytes, hyper, the edge, the queue, and
//! the spool on disk. It leaves out the kernel's network code, and the hand-over to another thread.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::{ArcSwap, ArcSwapOption};
use bytes::Bytes;
use pixeld::parts::network_lists::files::Lists;
use pixeld_core::clock::micros::Micros;
use pixeld_core::ids::{ImageId, MessageId, RecipientId, SpoolId};
use pixeld_core::link::token::SigningKeys;
use pixeld_core::metrics::Metrics;
use pixeld_core::privacy::IpPrivacy;
use pixeld_edge::images::{Image, ImageCache, TRANSPARENT_GIF};
use pixeld_edge::limits::Limits;
use pixeld_edge::listener::serve;
use pixeld_edge::queue::{Intake, Outbox, acknowledge, queue};
use pixeld_edge::unrecorded::Unrecorded;
use pixeld_edge::{Core, Edge};
use pixeld_spool::appender::Appender;
use pixeld_spool::disk::RealDisk;
use pixeld_spool::{Published, Spool, SpoolRoom};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::task::LocalSet;
use uuid::Uuid;

const IMAGE: ImageId = ImageId::from_u128(0x5a3b_1e00_0000_4000_8000_0000_0000_0009);

/// A core, a connection to it, and a spool.
pub struct InMemory {
    runtime: tokio::runtime::Runtime,
    local: LocalSet,
    client: Option<DuplexStream>,
    metrics: Arc<Metrics>,
    sent: u64,
    _dir: tempfile::TempDir,
}

impl InMemory {
    pub fn new() -> InMemory {
        let dir = tempfile::tempdir().expect("a directory");
        let metrics = Metrics::new(1);
        let (images, _wanted) = ImageCache::new(1 << 20);
        images.note_known(IMAGE, Micros(1));
        images.put(IMAGE, Micros(1), Arc::new(Image::new(Bytes::from_static(TRANSPARENT_GIF), "image/gif")));
        let edge = Arc::new(Edge {
            images,
            limits: Limits::new(std::num::NonZeroU32::new(1000), 1),
            metrics: Arc::clone(&metrics),
            trusted_proxies: vec!["127.0.0.0/8".parse().expect("a network")],
            ip_privacy: IpPrivacy::Full,
            connections_max: 100,
            networks: ArcSwap::from_pointee(Lists::default().networks()),
            namespace: ArcSwapOption::empty(),
            suppressed: Arc::default(),
            signing_keys: SigningKeys::default(),
            require_signed: false,
            unrecorded: Arc::new(Unrecorded::new(Arc::default())),
        });
        let (queue, intake) = queue(1, &metrics);
        let outbox = Outbox::new(0, queue, std::thread::current());
        let core = Rc::new(Core::new(0, edge, Rc::clone(&outbox)));
        let spool = Spool::new(dir.path(), SpoolId::from_u128(1), Published::default());
        let room = Arc::new(SpoolRoom::new(0, u64::MAX));
        let appender = Appender::new(spool, room, Arc::new(RealDisk), Arc::clone(&metrics));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let local = LocalSet::new();
        let (client, server) = tokio::io::duplex(64 << 10);
        let place = Rc::new(core.connections().enter(IpAddr::V4(Ipv4Addr::LOCALHOST)));
        // Its timer belongs to the runtime.
        let carrier = {
            let _entered = runtime.enter();
            outbox.carry()
        };
        local.spawn_local(carrier);
        local.spawn_local(write(intake, appender, Arc::clone(&metrics)));
        local.spawn_local(serve(core, place, server, IpAddr::V4(Ipv4Addr::LOCALHOST)));
        InMemory { runtime, local, client: Some(client), metrics, sent: 0, _dir: dir }
    }

    /// Sends `count` requests, each after the answer to the one before; each has its own recipient.
    pub fn requests(&mut self, count: u64) {
        let mut client = self.client.take().expect("it is given back after each call");
        let from = self.sent;
        self.sent += count;
        let asking = async move {
            let mut answer = vec![0; 4096];
            for number in from..from + count {
                client.write_all(&request(number)).await.expect("the server reads");
                let mut read = 0;
                // The image's last byte ends the answer.
                while read == 0 || answer[read - 1] != b';' {
                    read += client.read(&mut answer[read..]).await.expect("an answer");
                }
            }
            client
        };
        self.client = Some(self.local.block_on(&self.runtime, asking));
        assert_eq!(self.metrics.spooled.get() as u64, self.sent, "every request is in the spool");
    }
}

fn request(number: u64) -> Vec<u8> {
    let (message, recipient) = (MessageId::from_u128(7), RecipientId::of(Uuid::from_u64_pair(8, number + 1)));
    format!(
        "GET /image/{IMAGE}_{message}_{recipient}.gif HTTP/1.1\r\nHost: pixels.example.com\r\n\
         User-Agent: Mozilla/5.0 (Windows NT 5.1; rv:11.0) Gecko Firefox/11.0 (via ggpht.com GoogleImageProxy)\r\n\
         Accept: image/avif,image/webp,image/*,*/*;q=0.8\r\nAccept-Encoding: gzip, deflate, br\r\n\
         X-Forwarded-For: 11.{}.{}.{}\r\n\r\n",
        number >> 16 & 255,
        number >> 8 & 255,
        number & 255
    )
    .into_bytes()
}

/// The writer's work, in this thread.
async fn write(intake: Intake, mut appender: Appender, metrics: Arc<Metrics>) {
    loop {
        let group: Vec<_> = intake.parcels.try_iter().collect();
        if !group.is_empty() {
            let hits: u32 = group.iter().map(|parcel| parcel.count).sum();
            appender.append(&group).expect("the disk has room");
            metrics.spooled.add(i64::from(hits));
            metrics.queued.add(-i64::from(hits));
            acknowledge(&intake.receipts, group.iter().map(|parcel| (parcel.core, parcel.number)));
            // Synced hits need not be kept; here nothing ever is.
            appender.synced(u64::MAX);
        }
        tokio::task::yield_now().await;
    }
}
