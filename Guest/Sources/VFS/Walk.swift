// From a path to a place: directories, `.`, `..`, symbolic links, and the file systems mounted on the way.

import FileInterface

/// An inode of one of the mounted file systems.
struct Place: Equatable {
  /// Index in the mount table.
  var mount: Int
  var inode: UInt32
}

/// Where a walk has led.
struct Walked {
  /// The directory of the last name.
  var directory: Place
  /// The last name, in the walk's path buffer; empty where the path ends with `/` alone, `.` or `..`.
  var name: Bytes
  /// What the path names; nil if the last name is not there.
  var target: Place?
  /// The path ended with `/`: it can only name a directory.
  var wantsDirectory: Bool
}

extension VFS {
  /// The root of what is mounted on `place`, or `place` itself.
  private func entering(_ place: Place) -> Place {
    var place = place
    var index = 1
    // A mount may be covered by a later one.
    while index < mounts.count {
      if mounts[index].covers == place { place = Place(mount: index, inode: mounts[index].system.root) }
      index += 1
    }
    return place
  }

  /// The directory above `place`, across mounts; the root's is the root.
  private func above(_ place: Place) throws(FileError) -> Place {
    var place = place
    while place.inode == mounts[place.mount].system.root {
      guard place.mount > 0 else { return place }
      place = mounts[place.mount].covers
    }
    return entering(Place(mount: place.mount, inode: try mounts[place.mount].system.parent(of: place.inode)))
  }

  private func kind(_ place: Place) throws(FileError) -> FileKind {
    try mounts[place.mount].system.attributes(place.inode).kind
  }

  /// Walks `path`, which begins at the root whether it starts with `/` or not. `followsLast`: whether a link at the end is
  /// followed too. All but the last name must be there. A `/` at the end follows a link as well.
  func walk(_ path: Bytes, followsLast: Bool, in buffer: PathBuffer) throws(FileError) -> Walked {
    try buffer.load(path)
    let root = entering(Place(mount: 0, inode: mounts[0].system.root))
    var directory = root
    var links = 0
    var position = 0
    while true {
      let path = buffer.path
      while path.byte(position) == 0x2f { position += 1 }
      let end = path.firstIndex(of: 0x2f, from: position) ?? path.count
      // Both lie inside: `position` and `end` are at most the count.
      let name = path.slice(position, end - position) ?? Bytes("")
      var next = end
      while path.byte(next) == 0x2f { next += 1 }
      let isLast = next >= path.count
      let hasSlash = next > end
      guard name.count <= 255 else { throw .badName }
      if name.isEmpty || name.equals(".") || name.equals("..") {
        if name.equals("..") { directory = try above(directory) }
        if isLast { return Walked(directory: directory, name: Bytes(""), target: directory, wantsDirectory: true) }
        position = next
        continue
      }
      let system = mounts[directory.mount].system
      let inode: UInt32
      do throws(FileError) { inode = try system.lookup(directory.inode, name) } catch {
        guard error == .notFound, isLast else { throw error }
        return Walked(directory: directory, name: name, target: nil, wantsDirectory: hasSlash)
      }
      let found = entering(Place(mount: directory.mount, inode: inode))
      if isLast, !hasSlash, !followsLast {
        return Walked(directory: directory, name: name, target: found, wantsDirectory: false)
      }
      switch try kind(found) {
      case .link:
        links += 1
        guard links <= VFS.maximumLinks else { throw .tooManyLinks }
        let target = try mounts[found.mount].system.readLink(found.inode)
        if target.first == 0x2f { directory = root }
        // The slash at the end stays: what the link names must then be a directory.
        try buffer.follow(target, rest: path.suffix(from: end) ?? Bytes(""))
        position = 0
      case .directory:
        if isLast { return Walked(directory: directory, name: name, target: found, wantsDirectory: hasSlash) }
        directory = found
        position = next
      default:
        guard isLast, !hasSlash else { throw .notDirectory }
        return Walked(directory: directory, name: name, target: found, wantsDirectory: false)
      }
    }
  }

  /// What `path` names.
  func find(_ path: Bytes, followsLast: Bool = true) throws(FileError) -> Place {
    guard let target = try walk(path, followsLast: followsLast, in: firstPath).target else { throw .notFound }
    return target
  }

  /// Whether something is mounted on `place`, or it is the root of a mount.
  func isMountPoint(_ place: Place) -> Bool {
    for mount in mounts where mount.covers == place { return true }
    return place.inode == mounts[place.mount].system.root
  }
}
