// How many processors there are to run on.

import CLinux
import Glibc

public enum HostProcessors {
  /// Those that this process may use: fewer than the host has under taskset(1) or in a cpuset (sched_getaffinity(2)). At least 1.
  public static var allowed: Int {
    let count = castor_allowed_processors()
    return max(1, count > 0 ? Int(count) : sysconf(CInt(_SC_NPROCESSORS_ONLN)))
  }
}
