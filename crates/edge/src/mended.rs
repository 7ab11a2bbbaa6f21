//! A connection's stream. It repairs requests that were damaged on the way, and replaces hyper's own refusals by ours.
//!
//! Guarantees: a request line with bytes that HTTP forbids reaches hyper in a form that it accepts
//! (`edge::request_line`), so that the image is served and the hit recorded. If hyper still refuses a request (a header
//! it cannot read, a head that is too long), the answer is an image if a path was found, and the request is counted and
//! noted. Gives up: requests after the first one of several that arrive at once; only the first is repaired. Costs a
//! check of the request line and a copy of the head's first bytes.
//!
//! hyper writes its refusals itself, without a hook, so they are recognised by their status here: no answer of ours has
//! one of these.

use std::io;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::head::HEAD_BYTES_MAX;
use super::request_line::{self, Line};
use super::{Core, refused};

/// Bytes of a head that are kept in case hyper refuses it.
const FRONT_BYTES: usize = 512;

/// The stream of one connection, for hyper.
#[derive(Debug)]
pub struct Mended<S> {
    stream: S,
    core: Rc<Core>,
    peer: IpAddr,
    /// Whether the next bytes begin a request.
    at_begin: bool,
    /// A line whose end has not arrived yet.
    unfinished: Vec<u8>,
    /// Bytes for hyper, and how many of them it has read.
    mended: Vec<u8>,
    taken: usize,
    front: [u8; FRONT_BYTES],
    front_bytes: usize,
    /// Whether hyper's last answer is completely written.
    at_answer: bool,
    refusal: Option<Refusal>,
}

/// What is written instead of hyper's refusal.
#[derive(Debug)]
struct Refusal {
    bytes: Vec<u8>,
    written: usize,
    /// The length of hyper's own refusal.
    replaced: usize,
}

impl<S> Mended<S> {
    /// The stream of a peer's connection.
    pub fn new(stream: S, core: Rc<Core>, peer: IpAddr) -> Mended<S> {
        Mended {
            stream,
            core,
            peer,
            at_begin: true,
            unfinished: Vec::new(),
            mended: Vec::new(),
            taken: 0,
            front: [0; FRONT_BYTES],
            front_bytes: 0,
            at_answer: true,
            refusal: None,
        }
    }

    fn keep_front(&mut self, received: &[u8]) {
        let room = &mut self.front[self.front_bytes..];
        let bytes = received.len().min(room.len());
        room[..bytes].copy_from_slice(&received[..bytes]);
        self.front_bytes += bytes;
    }

    /// Passes repaired bytes to hyper.
    fn take(&mut self, buffer: &mut ReadBuf<'_>) {
        let bytes = (self.mended.len() - self.taken).min(buffer.remaining());
        buffer.put_slice(&self.mended[self.taken..self.taken + bytes]);
        self.taken += bytes;
        if self.taken == self.mended.len() {
            (self.mended, self.taken) = (Vec::new(), 0);
        }
    }

    /// What hyper should read for the received beginning of a request; nothing while its first line is incomplete.
    fn begin(&mut self, received: &[u8]) -> Begin {
        self.keep_front(received);
        let line = if self.unfinished.is_empty() {
            request_line::read(received)
        } else {
            self.unfinished.extend_from_slice(received);
            request_line::read(&self.unfinished)
        };
        match line {
            Line::Unfinished if !received.is_empty() && self.unfinished.len() < HEAD_BYTES_MAX => {
                if self.unfinished.is_empty() {
                    self.unfinished.extend_from_slice(received);
                }
                return Begin::GoesOn;
            }
            Line::Mended(bytes) => {
                self.unfinished = Vec::new();
                self.mended = bytes;
            }
            Line::AsItIs | Line::Unfinished => self.mended = std::mem::take(&mut self.unfinished),
        }
        self.at_begin = false;
        if self.mended.is_empty() { Begin::AsItIs } else { Begin::Mended }
    }

    /// hyper's refusal among the bytes that it writes, by its status.
    fn refused(&self, first: &[u8]) -> Option<u16> {
        let status = first.strip_prefix(b"HTTP/1.")?.get(2..5)?;
        let status = match status {
            b"400" => 400,
            b"414" => 414,
            b"431" => 431,
            _ => return None,
        };
        self.at_answer.then_some(status)
    }

    fn written(&mut self, written: usize, offered: usize) {
        self.at_answer = written == offered;
        if self.at_answer {
            (self.at_begin, self.front_bytes) = (true, 0);
        }
    }
}

enum Begin {
    AsItIs,
    Mended,
    GoesOn,
}

impl<S: AsyncRead + Unpin> AsyncRead for Mended<S> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.mended.is_empty() {
            this.take(buffer);
            return Poll::Ready(Ok(()));
        }
        loop {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(context, buffer))?;
            let received = &buffer.filled()[before..];
            if !this.at_begin {
                this.keep_front(received);
                return Poll::Ready(Ok(()));
            }
            match this.begin(received) {
                Begin::AsItIs => return Poll::Ready(Ok(())),
                Begin::Mended => {
                    buffer.set_filled(before);
                    this.take(buffer);
                    return Poll::Ready(Ok(()));
                }
                Begin::GoesOn => buffer.set_filled(before),
            }
        }
    }
}

impl<S: AsyncWrite + Unpin> Mended<S> {
    /// Writes the current refusal; then hyper's own counts as written.
    fn poll_refusal(&mut self, context: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let refusal = self.refusal.as_mut()?;
        while refusal.written < refusal.bytes.len() {
            match Pin::new(&mut self.stream).poll_write(context, &refusal.bytes[refusal.written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(written)) => refusal.written += written,
                other => return Some(other),
            }
        }
        let replaced = refusal.replaced;
        self.refusal = None;
        Some(Poll::Ready(Ok(replaced)))
    }

    fn poll_begin(
        &mut self,
        context: &mut Context<'_>,
        first: &[u8],
        offered: usize,
    ) -> Option<Poll<io::Result<usize>>> {
        if self.refusal.is_none() {
            let status = self.refused(first)?;
            let bytes = refused::answer(&self.core, self.peer, &self.front[..self.front_bytes], status);
            self.refusal =
                Some(Refusal { bytes: bytes.unwrap_or_else(|| first.to_vec()), written: 0, replaced: offered });
        }
        self.poll_refusal(context)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Mended<S> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if let Some(refused) = this.poll_begin(context, bytes, bytes.len()) {
            return refused;
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(context, bytes))?;
        this.written(written, bytes.len());
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let offered = slices.iter().map(|slice| slice.len()).sum();
        if let Some(refused) = this.poll_begin(context, slices.first().map_or(&[], |slice| slice), offered) {
            return refused;
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(context, slices))?;
        this.written(written, offered);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }
}
