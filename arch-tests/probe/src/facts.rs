//! What this architecture is like, asked of the system: word size, byte order, and whether times after 2038 are kept.

use std::fs::{File, FileTimes};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use common::sys::Clock;
use common::time::Wall;

/// 2040-01-01, which does not fit 32 bits.
const LATE_S: u64 = 2_208_988_800;

/// Lines of a name and a value.
pub fn facts() -> Result<String, String> {
    let path = std::env::temp_dir().join(format!("vigo-probe-{}", std::process::id()));
    let kept = file_time(&path).map_err(|error| format!("{}: {error}", path.display()));
    let _ = std::fs::remove_file(&path);
    let late = Wall(LATE_S as i64 * 1_000);
    let clock = Clock::system().now().wall;
    Ok(format!(
        "bits {}\nlittle_endian {}\nfile_time_s {}\nlate {late}\nlate_again {}\nclock_ms {}\n",
        usize::BITS,
        cfg!(target_endian = "little"),
        kept?,
        Wall::parse(&late.to_string()).map_or(-1, |wall| wall.0),
        clock.0,
    ))
}

/// The time of a file, set to after 2038 and read back.
fn file_time(path: &std::path::Path) -> std::io::Result<u64> {
    let file = File::create(path)?;
    let late: SystemTime = UNIX_EPOCH + Duration::from_secs(LATE_S);
    file.set_times(FileTimes::new().set_modified(late))?;
    let found = path.metadata()?.modified()?;
    Ok(found.duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs()))
}
