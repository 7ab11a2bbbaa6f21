//! Memory at full load and with ten thousand idle connections, and the time from start to the first pixel.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use anyhow::Context;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Options, load, median_of};
use crate::contestant::{Contestant, Kind, pixeld_settings, start_pixeld};
use crate::generator::{Pace, Reuse};
use pixeld_testkit::postgres::{Postgres, open_dir};
use pixeld_testkit::server::get;

/// Idle connections.
const IDLE_CONNECTIONS: usize = 10_000;

/// Starts that are timed.
const STARTS: usize = 5;

/// The resources that pixeld uses.
#[derive(Debug, Clone, Copy)]
pub struct Footprint {
    /// Memory after 256 connections at full load, in bytes.
    pub rss_full_load: u64,
    /// Memory with ten thousand idle connections, each of which was answered once, in bytes.
    pub rss_idle_connections: u64,
    /// Seconds from start to the first pixel answered, with an existing embedded database.
    pub start_seconds: f64,
}

pub(super) fn measure(options: &Options) -> anyhow::Result<Footprint> {
    let postgres = Postgres::start()?;
    let contestant = Contestant::start(Kind::Written, &options.program, &postgres)?;
    load(&contestant, Pace::Closed, Reuse::KeepAlive, 256, options.duration * 2)?;
    let rss_full_load = contestant.usage()?.rss_bytes;
    drop(contestant);
    let contestant = Contestant::start(Kind::Written, &options.program, &postgres)?;
    let idle = (0..IDLE_CONNECTIONS).map(|n| answered_once(&contestant, n)).collect::<anyhow::Result<Vec<_>>>()?;
    let rss_idle_connections = contestant.usage()?.rss_bytes;
    drop(idle);
    drop(contestant);
    let start_seconds = start_seconds(options)?;
    let footprint = Footprint { rss_full_load, rss_idle_connections, start_seconds };
    eprintln!("{footprint:?}");
    Ok(footprint)
}

/// A connection that has had one answer, and stays open.
fn answered_once(contestant: &Contestant<'_>, number: usize) -> anyhow::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let source = std::net::Ipv4Addr::new(127, 0, 1, (number % 250) as u8 + 1);
    socket.bind(&std::net::SocketAddr::from((source, 0)).into())?;
    socket.connect(&contestant.target().into())?;
    let mut stream = TcpStream::from(socket);
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut request = Vec::new();
    contestant.pixels().put_request(&mut request, number as u64, false);
    stream.write_all(&request)?;
    let read = stream.read(&mut [0; 2048])?;
    anyhow::ensure!(read > 100, "no answer");
    Ok(stream)
}

/// The median time from a start to its first pixel, on a data directory with an embedded database.
fn start_seconds(options: &Options) -> anyhow::Result<f64> {
    let dir = open_dir()?;
    let settings = pixeld_settings(&options.program, dir.path())?;
    let (mut server, image) = start_pixeld(settings.clone())?;
    server.terminate()?;
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let started = Instant::now();
        let mut server = settings.clone().launch()?;
        let path = format!("/image/{image}.gif");
        while !get(server.public(), &path).is_ok_and(|answer| answer.status == 200) {
            anyhow::ensure!(started.elapsed() < Duration::from_secs(30), "no pixel:\n{}", server.log());
            std::thread::sleep(Duration::from_millis(1));
        }
        times.push(started.elapsed().as_secs_f64());
        // A server is stopped cleanly only if it has its database.
        server.at_rest(Duration::from_secs(60)).context("the first pixel's hit")?;
        server.terminate()?;
    }
    Ok(median_of(times))
}
