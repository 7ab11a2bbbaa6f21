//! One HTTP/1.1 connection of the load: connects, sends a request, and reads its answer, all without blocking.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr};

use mio::net::TcpStream;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, Socket, Type};

/// Maximum bytes of an answer's head, and bytes that are read at a time.
const BUFFER_BYTES: usize = 8 << 10;

/// Source addresses that connections take in turn: new connections use up the ports of one address within seconds.
const SOURCES: u64 = 250;

/// A connection and its current answer.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    out: Vec<u8>,
    written: usize,
    buffer: Box<[u8; BUFFER_BYTES]>,
    filled: usize,
    /// Bytes of the body that are still to come, once the head is read.
    body_left: Option<usize>,
    status: u16,
    closes: bool,
}

/// The result of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// There is more to come.
    Pending,
    /// The answer is complete.
    Answered {
        /// Its status.
        status: u16,
        /// The server closes the connection after it.
        closes: bool,
    },
}

impl Connection {
    /// Starts to connect. `number` chooses the source address if the target is this machine's loopback.
    pub fn connect(target: SocketAddr, number: u64, registry: &Registry, token: Token) -> io::Result<Connection> {
        let socket = Socket::new(Domain::for_address(target), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        if target.ip() == Ipv4Addr::LOCALHOST {
            socket.set_reuse_address(true)?;
            let source = Ipv4Addr::new(127, 0, 0, 2 + (number % SOURCES) as u8);
            socket.bind(&SocketAddr::from((source, 0)).into())?;
        }
        match socket.connect(&target.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(nix::errno::Errno::EINPROGRESS as i32) => {}
            Err(error) => return Err(error),
        }
        let mut stream = TcpStream::from_std(socket.into());
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Connection {
            stream,
            out: Vec::with_capacity(1024),
            written: 0,
            buffer: Box::new([0; BUFFER_BYTES]),
            filled: 0,
            body_left: None,
            status: 0,
            closes: false,
        })
    }

    /// Whether the connection is established; an error if it was refused.
    ///
    /// # Errors
    /// Why it was refused.
    pub fn is_connected(&self) -> io::Result<bool> {
        if let Some(error) = self.stream.take_error()? {
            return Err(error);
        }
        match self.stream.peer_addr() {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sends the request that `put` writes. [`Connection::flush`] sends what does not fit.
    pub fn send(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        self.out.clear();
        self.written = 0;
        self.filled = 0;
        self.body_left = None;
        put(&mut self.out);
        self.flush()
    }

    /// Sends what is left of the request.
    pub fn flush(&mut self) -> io::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(written) => self.written += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Reads what has arrived of the answer.
    ///
    /// # Errors
    /// On an error of the operating system; `UnexpectedEof` if the server closed the connection before the answer's
    /// end; `InvalidData` for an answer that is not HTTP/1.1.
    pub fn read(&mut self) -> io::Result<Progress> {
        loop {
            match self.stream.read(&mut self.buffer[self.filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => {
                    if self.take(read)? == Some(0) {
                        return Ok(Progress::Answered { status: self.status, closes: self.closes });
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Progress::Pending),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Processes bytes that were read. Returns the rest of the body's length, once that is known.
    fn take(&mut self, read: usize) -> io::Result<Option<usize>> {
        if let Some(left) = &mut self.body_left {
            *left = left.checked_sub(read).ok_or_else(|| invalid("more body than was announced"))?;
            return Ok(Some(*left));
        }
        self.filled += read;
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut answer = httparse::Response::new(&mut headers);
        let head = match answer.parse(&self.buffer[..self.filled]) {
            Ok(httparse::Status::Complete(head)) => head,
            Ok(httparse::Status::Partial) if self.filled < BUFFER_BYTES => return Ok(None),
            Ok(httparse::Status::Partial) => return Err(invalid("a head of more than 8 KiB")),
            Err(_) => return Err(invalid("no HTTP/1.1")),
        };
        self.status = answer.code.unwrap_or(0);
        let value = |name: &str| answer.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name)).map(|h| h.value);
        self.closes = value("connection").is_some_and(|value| value.eq_ignore_ascii_case(b"close"));
        let length = match (self.status, value("content-length")) {
            (204 | 304, _) => 0,
            (_, Some(length)) => {
                let length = std::str::from_utf8(length).ok().and_then(|length| length.parse::<usize>().ok());
                length.ok_or_else(|| invalid("a Content-Length that is no number"))?
            }
            (_, None) => return Err(invalid("no Content-Length")),
        };
        let left = length.checked_sub(self.filled - head).ok_or_else(|| invalid("more body than was announced"))?;
        self.body_left = Some(left);
        // The body is counted and discarded: its bytes overwrite the head.
        self.filled = 0;
        Ok(Some(left))
    }

    /// Leaves the event loop; the connection ends when it is dropped.
    pub fn leave(&mut self, registry: &Registry) -> io::Result<()> {
        registry.deregister(&mut self.stream)
    }
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}
