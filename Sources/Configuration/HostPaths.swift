// Where things are on the host: the guest built with the package, and the control sockets of running machines.

import Glibc

/// Paths that both executables and tests agree on.
public enum HostPaths {
  /// File name of the guest's kernel in the guest folder.
  public static let kernelName = "kernel.elf"
  /// File name of the guest's boot archive in the guest folder.
  public static let archiveName = "archive.tar"
  /// Environment variable that names the guest folder.
  public static let guestVariable = "CASTOR_GUEST_DIR"

  /// The absolute path of this executable, symbolic links resolved; nil where /proc is not mounted.
  public static var executable: String? {
    var buffer = [UInt8](repeating: 0, count: 4096)
    let count = readlink("/proc/self/exe", &buffer, buffer.count)
    guard count > 0 else { return nil }
    return String(decoding: buffer[..<count], as: UTF8.self)
  }

  /// The folder of a path, without the trailing slash.
  public static func folder(of path: String) -> String {
    guard let slash = path.lastIndex(of: "/") else { return "." }
    return slash == path.startIndex ? "/" : String(path[..<slash])
  }

  /// The folders in which the guest is looked for, in order: the environment's, beside the executable, where an
  /// installation has it (`../share/castor`), and the build folder's `pollux`.
  public static func guestFolders(executable: String?, environment: String?) -> [String] {
    var folders: [String] = []
    if let environment, !environment.isEmpty { return [environment] }
    if let executable {
      let folder = folder(of: executable)
      folders += [
        folder, "\(folder)/pollux", "\(folder)/../share/castor", "\(folder)/../pollux", "\(folder)/../../pollux",
      ]
    }
    return folders
  }

  /// Finds the guest that was built with the package: the first folder with a kernel. The archive is nil where that
  /// folder has none.
  public static func findGuest(
    executable: String? = HostPaths.executable, environment: String? = HostPaths.variable(guestVariable)
  ) throws(ConfigurationError) -> (kernel: String, archive: String?) {
    let folders = guestFolders(executable: executable, environment: environment)
    for folder in folders where access("\(folder)/\(kernelName)", F_OK) == 0 {
      let archive = "\(folder)/\(archiveName)"
      return ("\(folder)/\(kernelName)", access(archive, F_OK) == 0 ? archive : nil)
    }
    throw ConfigurationError(
      key: "kernel", value: "",
      expected: "no kernel was given and no built guest was found (looked for \(kernelName) in "
        + "\(folders.joined(separator: ", "))); give --kernel, or build the package with swift build",
      exitCode: .missingInput)
  }

  /// The value of an environment variable.
  public static func variable(_ name: String) -> String? { getenv(name).map { String(cString: $0) } }

  /// The folder of this user's control sockets: `$XDG_RUNTIME_DIR/castor`, else `/tmp/castor-UID`.
  public static var controlFolder: String {
    if let runtime = variable("XDG_RUNTIME_DIR"), !runtime.isEmpty { return "\(runtime)/castor" }
    return "/tmp/castor-\(getuid())"
  }

  /// The control socket of the machine with this name.
  public static func controlSocket(name: String) -> String { "\(controlFolder)/\(name).sock" }
}
