//! A TCP proxy in front of a MySQL server: the network, with its worst moments on order.
//!
//! It reads the client's packets one by one, so it knows a COMMIT when it sees one. Nothing may be encrypted on the
//! way, so clients connect with `?ssl-mode=disabled`.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

/// How long the server must have been silent after a COMMIT before its answer counts as given.
const ANSWERED: Duration = Duration::from_millis(40);
/// The command byte of a statement as text.
const COM_QUERY: u8 = 3;

/// How the line is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes at once.
    Fine,
    /// Every packet to the server waits this long.
    Slow(Duration),
    /// Nothing passes, in either direction, and nobody is told. When that is over, such connections are cut.
    HalfOpen,
    /// Connections are cut, and new ones closed as soon as they are made.
    Down,
}

/// Where in a COMMIT's life the connection dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It never reaches the server.
    Before,
    /// It was sent, and then nobody listens.
    Sent,
    /// The server has answered, and the answer is dropped.
    Answered,
}

/// A proxy on a port of its own. It ends, with its connections, when this is dropped.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    control: Arc<Control>,
    accepting: JoinHandle<()>,
}

#[derive(Debug)]
struct Control {
    upstream: SocketAddr,
    weather: watch::Sender<Weather>,
    /// Rises with each cut.
    cuts: watch::Sender<u64>,
    /// COMMITs that are to be lost, the next one first.
    orders: (mpsc::UnboundedSender<Moment>, tokio::sync::Mutex<mpsc::UnboundedReceiver<Moment>>),
    lost: [AtomicU64; 3],
    open: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of 127.0.0.1, for the server at `upstream`.
    ///
    /// # Errors
    ///
    /// When no port can be had.
    pub async fn start(upstream: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let (sender, receiver) = mpsc::unbounded_channel();
        let control = Arc::new(Control {
            upstream,
            weather: watch::Sender::new(Weather::Fine),
            cuts: watch::Sender::new(0),
            orders: (sender, tokio::sync::Mutex::new(receiver)),
            lost: Default::default(),
            open: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&control)));
        Ok(Self { port, control, accepting })
    }

    /// The port that it listens on.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Changes how the line is, for connections that are there and for new ones.
    pub fn weather(&self, weather: Weather) {
        // First of all: what was sent into the silence must not arrive after it.
        if *self.control.weather.borrow() == Weather::HalfOpen {
            self.cut();
        }
        self.control.weather.send_replace(weather);
        if weather == Weather::Down {
            self.cut();
        }
    }

    /// Cuts every connection. Returns how many there were.
    pub fn cut(&self) -> u64 {
        let open = self.control.open.load(Ordering::SeqCst);
        self.control.cuts.send_modify(|cuts| *cuts += 1);
        open
    }

    /// The next COMMIT that comes by loses its connection at this moment. Orders queue up.
    pub fn lose_commit(&self, moment: Moment) {
        // The receiver lives as long as this does.
        let _ = self.control.orders.0.send(moment);
    }

    /// Fine weather from now on, and no COMMIT is lost any more.
    pub fn calm(&self) {
        self.weather(Weather::Fine);
        // Nobody holds this lock for longer than a look.
        while let Ok(mut orders) = self.control.orders.1.try_lock() {
            if orders.try_recv().is_err() {
                break;
            }
        }
    }

    /// How many COMMITs lost their connections so far: before, sent, answered.
    #[must_use]
    pub fn lost_commits(&self) -> [u64; 3] {
        self.control.lost.each_ref().map(|count| count.load(Ordering::SeqCst))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

impl Control {
    /// The order for a COMMIT that comes by now, if there is one.
    async fn order(&self) -> Option<Moment> {
        self.orders.1.lock().await.try_recv().ok()
    }

    fn count(&self, moment: Moment) {
        self.lost[moment as usize].fetch_add(1, Ordering::SeqCst);
    }
}

async fn accept(listener: TcpListener, control: Arc<Control>) {
    loop {
        let Ok((client, _)) = listener.accept().await else { continue };
        let control = Arc::clone(&control);
        tokio::spawn(async move {
            control.open.fetch_add(1, Ordering::SeqCst);
            // Whatever ends a connection ends it on both sides; there is nobody to tell more.
            let _ = serve(client, &control).await;
            control.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(client: TcpStream, control: &Control) -> io::Result<()> {
    let mut cuts = control.cuts.subscribe();
    cuts.mark_unchanged();
    if *control.weather.borrow() == Weather::Down {
        return Ok(());
    }
    let server = TcpStream::connect(control.upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    let line = Line { deaf: AtomicBool::new(false), answers: watch::Sender::new(0) };
    tokio::select! {
        biased;
        _ = cuts.changed() => Ok(()),
        ended = up(from_client, to_server, control, &line) => ended,
        ended = down(from_server, to_client, control, &line) => ended,
    }
}

/// What the two directions of a connection tell each other.
struct Line {
    /// Answers go nowhere.
    deaf: AtomicBool,
    /// Rises with each piece of an answer.
    answers: watch::Sender<u64>,
}

/// From the client to the server, packet by packet.
async fn up(mut client: OwnedReadHalf, mut server: OwnedWriteHalf, control: &Control, line: &Line) -> io::Result<()> {
    let mut packet = Vec::new();
    while read_packet(&mut client, &mut packet).await? {
        pass(control, true).await;
        let order = if is_commit(&packet) { control.order().await } else { None };
        let Some(moment) = order else {
            server.write_all(&packet).await?;
            continue;
        };
        if moment != Moment::Before {
            line.deaf.store(moment == Moment::Answered, Ordering::SeqCst);
            let mut answers = line.answers.subscribe();
            server.write_all(&packet).await?;
            if moment == Moment::Answered {
                answers.changed().await.map_err(io::Error::other)?;
                while timeout(ANSWERED, answers.changed()).await.is_ok() {}
            }
        }
        control.count(moment);
        return Ok(());
    }
    if *control.weather.borrow() == Weather::HalfOpen {
        // The client has gone, and the server does not hear of it.
        pass(control, true).await;
    }
    Ok(())
}

/// From the server to the client, as it comes.
async fn down(mut server: OwnedReadHalf, mut client: OwnedWriteHalf, control: &Control, line: &Line) -> io::Result<()> {
    let mut piece = vec![0; 16 * 1024];
    loop {
        let length = server.read(&mut piece).await?;
        if length == 0 {
            return Ok(());
        }
        line.answers.send_modify(|answers| *answers += 1);
        pass(control, false).await;
        if !line.deaf.load(Ordering::SeqCst) {
            client.write_all(&piece[..length]).await?;
        }
    }
}

/// Waits as the weather wants it.
async fn pass(control: &Control, upwards: bool) {
    let mut weather = control.weather.subscribe();
    loop {
        let now = *weather.borrow_and_update();
        match now {
            Weather::Slow(delay) if upwards => return sleep(delay).await,
            Weather::HalfOpen => {}
            _ => return,
        }
        if weather.changed().await.is_err() {
            return;
        }
    }
}

/// Reads one packet of MySQL's protocol, header included; `false` when the client has gone.
async fn read_packet(client: &mut OwnedReadHalf, packet: &mut Vec<u8>) -> io::Result<bool> {
    packet.resize(4, 0);
    match client.read_exact(packet).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
        Err(error) => return Err(error),
    }
    let length = usize::from(packet[0]) | usize::from(packet[1]) << 8 | usize::from(packet[2]) << 16;
    packet.resize(4 + length, 0);
    client.read_exact(&mut packet[4..]).await?;
    Ok(true)
}

/// Whether the packet is a statement, or several, of which the last is COMMIT.
fn is_commit(packet: &[u8]) -> bool {
    packet.get(3) == Some(&0) && packet.get(4) == Some(&COM_QUERY) && packet.ends_with(b"COMMIT")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that answers `ok` to each packet, and how many packets it has seen.
    async fn server() -> (SocketAddr, watch::Receiver<u64>) {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (seen, saw) = watch::channel(0);
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let seen = seen.clone();
                tokio::spawn(async move {
                    let (mut read, mut write) = client.into_split();
                    let mut packet = Vec::new();
                    while read_packet(&mut read, &mut packet).await.unwrap_or(false) {
                        seen.send_modify(|seen| *seen += 1);
                        write.write_all(b"ok").await.unwrap();
                    }
                });
            }
        });
        (address, saw)
    }

    fn query(sql: &str) -> Vec<u8> {
        let length = u8::try_from(sql.len() + 1).unwrap();
        [&[length, 0, 0, 0, COM_QUERY], sql.as_bytes()].concat()
    }

    /// What comes back; `None` when the connection is cut.
    async fn ask(stream: &mut TcpStream, sql: &str) -> Option<[u8; 2]> {
        stream.write_all(&query(sql)).await.ok()?;
        let mut answer = [0; 2];
        stream.read_exact(&mut answer).await.ok().map(|_| answer)
    }

    async fn connect(proxy: &Proxy) -> TcpStream {
        TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).await.unwrap()
    }

    #[tokio::test]
    async fn a_commit_is_lost_at_each_moment_and_others_pass() {
        let (address, mut saw) = server().await;
        let proxy = Proxy::start(address).await.unwrap();
        for (moment, reaches) in [(Moment::Before, false), (Moment::Sent, true), (Moment::Answered, true)] {
            proxy.lose_commit(moment);
            let mut client = connect(&proxy).await;
            assert_eq!(ask(&mut client, "SELECT 1").await, Some(*b"ok"), "what is no COMMIT passes");
            let before = *saw.borrow();
            assert_eq!(ask(&mut client, "SELECT 1; COMMIT").await, None, "{moment:?}");
            if reaches {
                saw.wait_for(|seen| *seen > before).await.unwrap();
            }
            let mut next = connect(&proxy).await;
            assert_eq!(ask(&mut next, "COMMIT").await, Some(*b"ok"), "one order loses one COMMIT");
            assert_eq!(*saw.borrow() - before, 1 + u64::from(reaches), "{moment:?}");
        }
        assert_eq!(proxy.lost_commits(), [1, 1, 1]);
    }

    #[tokio::test]
    async fn a_cut_and_bad_weather_end_connections_and_fine_weather_lets_new_ones_in() {
        let (address, _saw) = server().await;
        let proxy = Proxy::start(address).await.unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "SELECT 1").await, Some(*b"ok"));
        assert_eq!(proxy.cut(), 1);
        assert_eq!(ask(&mut client, "SELECT 1").await, None);
        proxy.weather(Weather::Down);
        assert_eq!(ask(&mut connect(&proxy).await, "SELECT 1").await, None);
        proxy.weather(Weather::Slow(Duration::from_millis(1)));
        assert_eq!(ask(&mut connect(&proxy).await, "SELECT 1").await, Some(*b"ok"));
    }

    #[tokio::test]
    async fn a_half_open_line_is_silent_and_then_cut() {
        let (address, saw) = server().await;
        let proxy = Proxy::start(address).await.unwrap();
        let mut client = connect(&proxy).await;
        assert_eq!(ask(&mut client, "SELECT 1").await, Some(*b"ok"));
        proxy.weather(Weather::HalfOpen);
        client.write_all(&query("SELECT 2")).await.unwrap();
        let mut answer = [0; 2];
        assert!(timeout(Duration::from_millis(50), client.read_exact(&mut answer)).await.is_err(), "silence");
        proxy.weather(Weather::Fine);
        assert!(client.read_exact(&mut answer).await.is_err(), "cut");
        assert_eq!(*saw.borrow(), 1, "what was sent into the silence never arrives");
        assert_eq!(ask(&mut connect(&proxy).await, "SELECT 3").await, Some(*b"ok"));
    }
}
