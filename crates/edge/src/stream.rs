//! A connection's stream: records what the connection is doing, and uses the event loop only if it must.
//!
//! Most image proxies open a connection, send one request, and close it. Such a request has arrived by the time its
//! connection is accepted, and its answer fits into the socket's buffer. So a stream reads and writes at once, and is
//! registered with the event loop (three system calls, and a turn of the loop) only if it has to wait.

use std::io::{self, Read, Write};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::net::SendFlags;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;

use super::connections::{Doing, Place};

/// Bytes that are read and discarded at the end of a connection on which something was refused.
const UNREAD_BYTES_MAX: usize = 128 << 10;

/// Bytes that an unregistered stream reads at a time: the buffer is zeroed first, and most heads are smaller.
const FRESH_READ_BYTES: usize = 2048;

/// Bytes of an answer, head and body, that are copied together and sent by one `send`: a `writev` of two slices takes
/// the kernel longer than the copy.
const SMALL_BYTES: usize = 1024;

/// The stream of one connection.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    place: Rc<Place>,
    /// The kernel holds the end of the last answer until the connection ends, so that both go in one segment.
    holds_last: bool,
}

#[derive(Debug)]
enum Socket {
    /// Has never had to wait.
    Fresh(std::net::TcpStream),
    Registered(TcpStream),
    /// Could not be registered; the error was reported.
    Lost,
}

impl Stream {
    /// The stream of a connection that was just accepted, and does not block.
    pub fn new(socket: std::net::TcpStream, place: Rc<Place>) -> Stream {
        Stream { socket: Socket::Fresh(socket), place, holds_last: false }
    }

    /// The registered socket.
    fn registered(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        if let Socket::Fresh(_) = self.socket
            && let Socket::Fresh(socket) = std::mem::replace(&mut self.socket, Socket::Lost)
        {
            self.socket = Socket::Registered(TcpStream::from_std(socket)?);
        }
        match &mut self.socket {
            Socket::Registered(socket) => Ok(Pin::new(socket)),
            _ => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// Tries `fresh` at once; uses `registered` if that would block, or if the socket is registered already.
    fn poll_io<T>(
        &mut self,
        mut fresh: impl FnMut(&mut std::net::TcpStream) -> io::Result<T>,
        registered: impl FnOnce(Pin<&mut TcpStream>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if let Socket::Fresh(socket) = &mut self.socket {
            loop {
                match fresh(socket) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            }
        }
        registered(self.registered()?)
    }

    /// Sends these few bytes.
    fn poll_send(&mut self, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let is_last = self.place.state.is_last() && !self.place.has_unread();
        let flags = if is_last { SendFlags::NOSIGNAL | SendFlags::MORE } else { SendFlags::NOSIGNAL };
        let outcome = self.poll_io(
            |socket| Ok(rustix::net::send(&*socket, bytes, flags)?),
            |socket| loop {
                ready!(socket.poll_write_ready(context))?;
                let sent = socket.try_io(Interest::WRITABLE, || Ok(rustix::net::send(&*socket, bytes, flags)?));
                match sent {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    done => return Poll::Ready(done),
                }
            },
        );
        self.holds_last |= is_last && matches!(outcome, Poll::Ready(Ok(_)));
        outcome
    }

    /// Ends our side.
    fn shut(&self) -> io::Result<()> {
        match &self.socket {
            Socket::Fresh(socket) => socket.shutdown(std::net::Shutdown::Write),
            Socket::Registered(socket) => {
                rustix::net::shutdown(socket, rustix::net::Shutdown::Write).map_err(Into::into)
            }
            Socket::Lost => Ok(()),
        }
    }

    fn written<T>(&self, outcome: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        match &outcome {
            Poll::Pending => self.place.now(Doing::Blocked),
            Poll::Ready(_) => self.place.sent(),
        }
        outcome
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let buffer = std::cell::RefCell::new(buffer);
        ready!(self.poll_io(
            |socket| {
                let mut buffer = buffer.borrow_mut();
                let room = buffer.remaining().min(FRESH_READ_BYTES);
                let read = socket.read(buffer.initialize_unfilled_to(room))?;
                buffer.advance(read);
                Ok(())
            },
            |socket| socket.poll_read(context, &mut buffer.borrow_mut()),
        ))?;
        if buffer.borrow().filled().len() > before {
            self.place.received();
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let outcome = if bytes.len() <= SMALL_BYTES {
            self.poll_send(context, bytes)
        } else {
            self.poll_io(|socket| socket.write(bytes), |socket| socket.poll_write(context, bytes))
        };
        self.written(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let bytes = slices.iter().map(|slice| slice.len()).sum::<usize>();
        let outcome = if bytes <= SMALL_BYTES {
            let mut joined = [0; SMALL_BYTES];
            let mut end = 0;
            for slice in slices {
                joined[end..end + slice.len()].copy_from_slice(slice);
                end += slice.len();
            }
            self.poll_send(context, &joined[..end])
        } else {
            self.poll_io(|socket| socket.write_vectored(slices), |socket| socket.poll_write_vectored(context, slices))
        };
        self.written(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.place.has_unread() {
            // The connection is closed next, and that ends our side too: one system call less per connection. But a close
            // with unread bytes in the kernel would discard what it holds.
            return Poll::Ready(if self.holds_last { self.shut() } else { Ok(()) });
        }
        // If a connection is closed with unread bytes, the kernel resets it, and the refusal that was just sent is
        // lost. Read what has arrived by now; do not wait for a peer that keeps sending.
        let mut waste = [0; 4096];
        let shut = self.shut();
        for _ in 0..UNREAD_BYTES_MAX / waste.len() {
            let read = match &mut self.socket {
                Socket::Fresh(socket) => socket.read(&mut waste),
                Socket::Registered(socket) => socket.try_read(&mut waste),
                Socket::Lost => Ok(0),
            };
            if !matches!(read, Ok(1..)) {
                break;
            }
        }
        Poll::Ready(shut)
    }
}
