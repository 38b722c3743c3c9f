//! A test with more connections than a server holds. Real log-ins of so many take minutes, so they are
//! counted as members without one.

use crate::server::*;

struct Crowd {
    server: Server,
    now: Instant,
    last: u64,
}

impl Crowd {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, UnixTime::from_millis(1_700_000_000_000));
        let options = ServerOptions::new(BucketKey([9; 32]));
        let server = Server::new([5; 32], now, epoch, options, Restored::default());
        Self {
            server,
            now,
            last: 0,
        }
    }

    /// A connection comes; tells whether it may stay.
    fn accept(&mut self) -> bool {
        self.last += 1;
        let connection = ConnectionId(self.last);
        let source = SocketAddr::from(([192, 0, 2, 1], 4000));
        let input = Input::Accepted { connection, source };
        self.server.handle_input(input, self.now);
        // As if it had logged in at once.
        self.server.strangers.clear();
        let output = self.server.poll_output(self.now);
        if let Output::Close {
            connection: of,
            why,
        } = output
        {
            assert_eq!((of, why), (connection, CloseReason::TooMany));
            return false;
        }
        assert!(matches!(output, Output::Wait(_)), "{output:?}");
        true
    }
}

#[test]
fn t28_the_server_holds_so_many_connections_and_no_more() {
    let mut crowd = Crowd::new();
    for _ in 0..CONNECTIONS_MAX {
        assert!(crowd.accept(), "number {}", crowd.last);
    }
    for _ in 0..10 {
        assert!(!crowd.accept());
    }
    assert_eq!(crowd.server.connection_count(), CONNECTIONS_MAX);
    // One that leaves makes room for one.
    let connection = ConnectionId(1);
    let gone = Input::Disconnected { connection };
    crowd.server.handle_input(gone, crowd.now);
    assert!(crowd.accept());
    assert!(!crowd.accept());
    assert_eq!(crowd.server.connection_count(), CONNECTIONS_MAX);
}
