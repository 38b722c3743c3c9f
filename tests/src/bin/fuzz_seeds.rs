//! Writes the inputs that fuzzing begins with to the corpora, after a target or a message was added.
#![expect(clippy::print_stdout, reason = "the program says what it wrote")]

use std::fs;
use std::io;
use std::path::Path;

use tests::fuzz::{TARGETS, seeds};

fn main() -> io::Result<()> {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for target in TARGETS {
        let folder = corpus.join(target.name);
        fs::create_dir_all(&folder)?;
        for (name, bytes) in seeds::stale(target.name, &folder) {
            fs::write(folder.join(&name), bytes)?;
            println!("{}/{name}", target.name);
        }
    }
    Ok(())
}
