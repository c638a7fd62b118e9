// The file service (HongMeng §4.3): tmpfs at /, ext2 of the block device at /disk, the devices that drivers have announced in /dev, the boot archive in /boot.
//
// One stack makes its RPC service a monitor: callers come in one after the other, each on its own thread and for its own account. The
// program's own thread is a caller like others: it closes what ended clients had open, and syncs what has been written for a while.
// Arguments: `disk=NAME` the block service (block), `memory=SIZE` of the tmpfs (16M), `cache=SIZE` of the page cache (4M).

import BlockClient
import Ext2
import FileInterface
import Pollux
import TmpFS
import VFS

@main enum VFSProgram {
  static let syncInterval: UInt64 = 5_000_000

  static func main() {
    do throws(SystemError) { try run() } catch {
      say("cannot go on: ", error.name)
      Kernel.exit(1)
    }
  }

  static func say(_ what: StaticString, _ detail: StaticString) {
    var line = Text("vfs: ")
    line.add(what)
    line.add(detail)
    line.add("\n")
    line.print()
    line.log()
  }

  /// The value of `key=` among the program's arguments.
  private static func argument(_ key: StaticString) -> Bytes? {
    CommandLine(Program.start.text("arguments") ?? Bytes("")).value(key)
  }

  private static func run() throws(SystemError) {
    let memory = try MemoryObject.create(argument("memory")?.size ?? 16 << 20).map([.read, .write])
    let vfs = VFS(root: TmpFS(PageStore(ByteArea(unsafeBase: memory.base, count: memory.size))))
    let disk = openDisk()
    let clock = WallClock(fallback: disk.map(Self.lastWrite) ?? 0)
    vfs.now = clock.now
    var cache: PageCache?
    if let disk, let system = mount(disk, clock) {
      let size = max(UInt64(PageCache.leastPages * PageStore.pageSize), argument("cache")?.size ?? 4 << 20)
      let memory = try MemoryObject.create(size).map([.read, .write])
      cache = PageCache(system, memory: ByteArea(unsafeBase: memory.base, count: memory.size))
    }
    do throws(FileError) {
      try fill(vfs, disk, cache)
    } catch { say("the tree cannot be made: ", error.name) }
    let ends = try Notification.create()
    let server = FileServer(vfs, cache: cache, clock: clock, ends: ends)
    let service = try RPCService.create(stacks: 1, stackSize: 64 << 10) { badge, message in
      server.serve(badge, &message)
    }
    let own = try service.connect(badge: 0)
    try service.publish()
    while true {
      let deadline =
        server.isChanged ? Clock.now + Clock.ticks(microseconds: syncInterval) : SystemCall.forever
      let bits = ends.wait(until: deadline)
      var message = bits == 0 ? Message(FileCall.sync.rawValue) : Message(FileCall.clientsEnded.rawValue, bits)
      try own.call(&message)
    }
  }

  private static func fill(_ vfs: VFS, _ disk: DiskStore?, _ system: PageCache?) throws(FileError) {
    for directory in [Bytes("/dev"), Bytes("/tmp"), Bytes("/boot")] { try vfs.makeDirectory(directory) }
    let mounted = system == nil ? nil : disk.map { ($0, (argument("disk") ?? Bytes("block")).array) }
    try vfs.mount(DeviceFS(MachineDevices(mounted: mounted)), at: Bytes("/dev"))
    if let archive = openArchive() { try vfs.mount(ArchiveFS(archive), at: Bytes("/boot")) }
    guard let system else { return }
    try vfs.makeDirectory(Bytes("/disk"))
    try vfs.mount(system, at: Bytes("/disk"))
  }

  private static func openArchive() -> TapeArchive? {
    guard let handle = Program.start.handle("archive"), let size = Program.start.number("archive-size") else {
      return nil
    }
    do throws(SystemError) {
      let mapping = try MemoryObject(Handle(handle)).map(.read)
      // Mapped for the life of the process.
      return TapeArchive(
        Bytes(unsafeBase: UnsafeRawPointer(mapping.base), count: min(Int(size), mapping.size)))
    } catch { return nil }
  }

  private static func openDisk() -> DiskStore? {
    let name = argument("disk") ?? Bytes("block")
    do throws(SystemError) {
      let endpoint = try Program.connect(name)
      do throws(BlockClientError) { return try DiskStore(endpoint) } catch {
        say("the disk's driver does not answer", "")
        return nil
      }
    } catch {
      if error != .notFound { say("no disk: ", error.name) }
      return nil
    }
  }

  /// When the file system on the disk was last written, by its superblock (bytes 48…51); 0 where there is none.
  private static func lastWrite(_ disk: DiskStore) -> UInt32 {
    let sectors = ByteBlock(count: 1024)
    guard disk.byteCount >= 2048 else { return 0 }
    do throws(FileError) { try disk.read(1024, into: sectors.area) } catch { return 0 }
    return sectors.area.load16(56) == 0xef53 ? sectors.area.load32(48) : 0
  }

  private static func mount(_ disk: DiskStore, _ clock: WallClock) -> Ext2<DiskStore>? {
    do throws(Ext2MountError) {
      let system = try Ext2(disk, now: clock.now)
      if system.checkReport != nil { say("the disk was not clean; it has been checked", "") }
      if system.isReadOnly { say("the disk is mounted read-only", "") }
      return system
    } catch {
      switch error {
      case .notExt2: say("no ext2 file system on the disk", "")
      case .incompatibleFeatures: say("the disk's file system has features that are not known here", "")
      case .badNumber: say("the disk's file system is damaged", "")
      case .checkFailed(let reason): say("the disk's file system cannot be mended: ", reason.name)
      case .inputOutput(let reason): say("the disk cannot be read: ", reason.name)
      }
      return nil
    }
  }
}
