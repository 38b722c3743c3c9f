//! A test with more connections than a server holds. Real log-ins of so many take minutes, so they are
//! counted as members without one.

use common::time::{Epoch, UnixTime};

use super::*;
use crate::server::io::Output;

struct Crowd {
    connections: Connections,
    context: Context,
    last: u64,
}

impl Crowd {
    #[expect(clippy::disallowed_methods, reason = "any instant will do as a start")]
    fn new() -> Self {
        let now = Instant::now();
        let epoch = Epoch::new(now, UnixTime::from_millis(1_700_000_000_000));
        Self {
            connections: Connections::new("test".to_owned()),
            context: Context::new([5; 32], now, epoch),
            last: 0,
        }
    }

    /// A connection comes; tells whether it may stay.
    fn accept(&mut self) -> bool {
        self.last += 1;
        let connection = ConnectionId(self.last);
        let source = SocketAddr::from(([192, 0, 2, 1], 4000));
        let context = &mut self.context;
        self.connections.on_accepted(connection, source, context);
        // As if it had logged in at once.
        self.connections.strangers.clear();
        assert_eq!(self.connections.poll_event(), None);
        match context.poll_output() {
            None => true,
            Some(Output::Close {
                connection: of,
                why,
            }) => {
                assert_eq!((of, why), (connection, CloseReason::TooMany));
                assert!(context.poll_output().is_none());
                false
            }
            Some(other) => panic!("{other:?}"),
        }
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
    assert_eq!(crowd.connections.count(), CONNECTIONS_MAX);
    // One that leaves makes room for one.
    let connection = ConnectionId(1);
    assert_eq!(crowd.connections.on_disconnected(connection), Some(false));
    assert!(crowd.accept());
    assert!(!crowd.accept());
    assert_eq!(crowd.connections.count(), CONNECTIONS_MAX);
}
