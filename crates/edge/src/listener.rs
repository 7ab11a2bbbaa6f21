//! Sockets and cores: each core has its own listener on the same port and its own runtime, so that a connection stays
//! on one core for its whole life.
//!
//! Guarantees: every port is bound before anything runs. A port on which another process listens is refused, although
//! SO_REUSEPORT would share it silently. During a drain, connections that are already in a listener's queue are still
//! served.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::thread::Thread;
use std::time::Duration;

use hyper::body::Body;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustix::net::SocketFlags;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest};
use tokio::task::LocalSet;

use super::connections::{self, Connections, Place};
use super::head::{self, HEAD_BYTES_MAX};
use super::mended::Mended;
use super::stream::Stream;
use super::{Core, Edge, answer};
use crate::queue::{Outbox, Queue};
use pixeld_core::drain::Drain;

/// Connections that may wait to be accepted, per core.
const BACKLOG: i32 = 4096;

/// Connections accepted before other tasks have their turn.
const ACCEPTS_A_TURN: usize = 64;

/// How long nothing is accepted after the operating system refused (too many open files, no memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How long a drain goes on accepting what is already in the listener's queue.
const LAST_ACCEPTS: Duration = Duration::from_millis(20);

/// Binds `count` listeners to one address. Port 0 chooses a free port, the same for all.
///
/// # Errors
/// On an error of the operating system; `AddrInUse` if another process listens there.
pub fn bind(address: SocketAddr, count: usize) -> io::Result<Vec<std::net::TcpListener>> {
    // First without SO_REUSEPORT: with it, two processes would share the port, and each would miss half of the opens.
    drop(socket(address, false)?);
    let first = socket(address, true)?;
    let bound = first.local_addr()?.as_socket().unwrap_or(address);
    let mut sockets = vec![first];
    for _ in 1..count {
        sockets.push(socket(bound, true)?);
    }
    sockets
        .into_iter()
        .map(|socket| {
            socket.listen(BACKLOG)?;
            Ok(socket.into())
        })
        .collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_nonblocking(true)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    // Accepted sockets inherit this; without it, a pipelined answer waits until the one before is acknowledged.
    socket.set_tcp_nodelay(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

/// Runs one core on the calling thread. It ends when the drain is done or its deadline has passed.
///
/// # Errors
/// If the operating system refuses the runtime, or if a part of the core ended before the drain.
pub fn run_core(
    number: usize,
    edge: Arc<Edge>,
    listener: std::net::TcpListener,
    queue: Queue,
    writer: Thread,
    drain: Drain,
) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let local = LocalSet::new();
    local.block_on(&runtime, async move {
        #[expect(
            deprecated,
            reason = "for types that lie about whose descriptor they have; std's listener owns its own"
        )]
        let listener = AsyncFd::with_interest(listener, Interest::READABLE)?;
        let outbox = Outbox::new(number, queue, writer);
        let core = Rc::new(Core::new(number, edge, outbox));
        run(core, listener, drain).await
    })
}

async fn run(core: Rc<Core>, listener: Listener, mut drain: Drain) -> io::Result<()> {
    let mut carrier = tokio::task::spawn_local(Rc::clone(&core.outbox).carry());
    let mut sweep = tokio::task::spawn_local(sweep(Rc::clone(&core)));
    tokio::select! {
        () = accept(&core, &listener) => {}
        () = drain.asked() => {}
        // A core that answers but records nothing, or that never cuts a connection, is worse than none.
        _ = &mut carrier => return Err(io::Error::other("the carrier of hits ended")),
        _ = &mut sweep => return Err(io::Error::other("the sweep of connections ended")),
    }
    // Connections that the kernel has already accepted would be reset with the listener.
    tokio::select! {
        () = accept(&core, &listener) => {}
        () = tokio::time::sleep(LAST_ACCEPTS) => {}
    }
    drop(listener);
    core.connections.drain();
    let drained = async {
        while core.connections.count() > 0 || !core.outbox.is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        () = drained => {}
        () = drain.deadline() => tracing::warn!(connections = core.connections.count(), "open connections were cut at the drain's deadline"),
    }
    carrier.abort();
    sweep.abort();
    Ok(())
}

async fn sweep(core: Rc<Core>) {
    let mut second = tokio::time::interval(Duration::from_secs(1));
    second.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    second.tick().await;
    loop {
        second.tick().await;
        core.connections.sweep(core.counts());
        core.sketch.clear();
    }
}

/// A listener that does not block, and its event loop.
type Listener = AsyncFd<std::net::TcpListener>;

/// Accepts one connection. Not tokio's own: that would register it with the event loop, which most connections never
/// need.
async fn accept_one(listener: &Listener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    loop {
        let mut ready = listener.readable().await?;
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let accepted = ready.try_io(|listener| Ok(rustix::net::acceptfrom_with(listener.get_ref(), flags)?));
        let Ok(accepted) = accepted else { continue };
        let (socket, peer) = accepted?;
        let peer = peer.and_then(|peer| SocketAddr::try_from(peer).ok());
        // A peer without an address has already disconnected.
        let peer = peer.ok_or(io::ErrorKind::ConnectionAborted)?;
        return Ok((socket.into(), peer));
    }
}

/// Accepts connections forever.
async fn accept(core: &Rc<Core>, listener: &Listener) {
    let connections_max = core.edge.connections_max.div_ceil(core.edge.metrics.cores.len());
    for turn in 0_usize.. {
        if turn % ACCEPTS_A_TURN == 0 {
            // Served connections come first for a moment, however many new ones wait.
            tokio::task::yield_now().await;
        }
        let (stream, peer) = match accept_one(listener).await {
            Ok(accepted) => accepted,
            Err(error) if is_of_one_connection(&error) => continue,
            Err(error) => {
                tracing::warn!(%error, "connections cannot be accepted now");
                core.connections.make_room(core.counts());
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        core.counts().connections_opened.one();
        let peer = peer.ip().to_canonical();
        if !has_room(core, peer, connections_max) {
            core.counts().connections_cut.one();
            continue;
        }
        let place = Rc::new(core.connections.enter(peer));
        let number = place.number();
        let stream = Stream::new(stream, Rc::clone(&place));
        let served = serve(Rc::clone(core), place, stream, peer);
        let task = tokio::task::spawn_local(served);
        core.connections.serve(number, task.abort_handle());
    }
}

/// Whether a connection of this peer may be served; others are cut for it. Behind a trusted proxy are all readers, so
/// it has no share.
fn has_room(core: &Core, peer: IpAddr, connections_max: usize) -> bool {
    let (connections, counts) = (&core.connections, core.counts());
    let is_beyond_share = connections.count_of(peer) >= connections::share(connections_max)
        && !core.edge.trusted_proxies.iter().any(|network| network.contains(&peer));
    (!is_beyond_share || connections.make_room_of(peer, counts))
        && (connections.count() < connections_max || connections.make_room(counts))
}

/// Errors of accept that concern only the one connection, which is already gone.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// Serves one connection to its end, over any stream.
pub async fn serve<S>(core: Rc<Core>, place: Rc<Place>, stream: S, peer: IpAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    core.counts().connections.add(1);
    let counted = Counted(Rc::clone(&core));
    let state = Rc::clone(&place.state);
    let service = service_fn(|request| {
        let core = Rc::clone(&core);
        let state = Rc::clone(&state);
        async move {
            state.set_busy(true);
            let answer = answer(&core, peer, &request).await;
            state.set_busy(false);
            if !request.body().is_end_stream() {
                state.leaves_unread();
            } else if head::is_last(request.version(), request.headers()) {
                state.set_last();
            }
            Ok::<_, std::convert::Infallible>(answer)
        }
    });
    let mut builder = http1::Builder::new();
    // The sweep handles time-outs: hyper's own would set a timer for every request. Half-close: a client may close its
    // side once its request is sent; its hit is recorded, so it must be answered. hyper's pipeline_flush stays off: it
    // delays an answer as long as anything else was received, in a buffer without a bound.
    builder.header_read_timeout(None).max_buf_size(HEAD_BYTES_MAX).half_close(true);
    let stream = Mended::new(stream, Rc::clone(&core), peer);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let connections: &Connections = &core.connections;
    let mut asked_to_close = false;
    let served = std::future::poll_fn(|context| {
        place.state.remember(context.waker());
        if connections.is_draining() && !asked_to_close {
            asked_to_close = true;
            connection.as_mut().graceful_shutdown();
        }
        Pin::new(&mut connection).poll(context)
    });
    if let Err(error) = served.await {
        // A client that disconnects or sends nonsense is not worth a log line.
        tracing::trace!(%error, "a connection ended");
    }
    drop(counted);
}

/// Decreases the count when the connection ends, even if its task is cut.
struct Counted(Rc<Core>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.counts().connections.add(-1);
    }
}
