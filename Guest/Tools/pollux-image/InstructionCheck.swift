// Which instructions kernel code must not contain, found in the text of `llvm-objdump -d --no-show-raw-insn` (AT&T syntax):
//
// - vector, MMX and x87 state: the kernel neither saves nor restores it on entry;
// - what the ring-0 emulation of a software KVM host cannot execute, or executes wrongly (lzcnt, tzcnt);
// - memory below the stack pointer: interrupts push there;
// - in services for kernel space (HongMeng §4.2) also what only the kernel may do there: privileged instructions, and those that
//   change interrupts, segments or the rights of protection keys.

/// Reads a disassembly line by line and collects findings.
struct InstructionCheck {
  private(set) var findings: [String] = []
  /// Addresses of all instructions.
  private(set) var addresses: [Int] = []
  /// The code is a service, not the kernel.
  private let isService: Bool

  init(isService: Bool = false) { self.isService = isService }

  private var function = ""
  /// Bytes pushed and reserved since the function's entry, where known, and the same when RBP was set to RSP.
  private var depth = 0
  private var frame: Int?
  /// The greatest depth so far: what code after a return in the middle of a function runs at.
  private var bodyDepth = 0

  /// The last instruction does not fall through, or may not: a call can be to a function that does not return.
  private var endsFlow = true

  private static let refused: Set<String> = [
    "popcnt", "lzcnt", "tzcnt", "crc32b", "crc32w", "crc32l", "crc32q", "adcx", "adox", "mulx", "rorx", "shlx", "shrx",
    "sarx", "pdep", "pext", "andn", "bextr", "blsi", "blsr", "blsmsk", "bzhi", "movbe", "rdpid", "cmpxchg16b", "int3",
    "int1", "int", "ud1", "rdtscp", "xgetbv", "xsetbv", "xsave", "xsaveopt", "xsavec", "xsaves", "xrstor", "xrstors",
    "xsave64", "xsaveopt64", "xsavec64", "xsaves64", "xrstor64", "xrstors64", "rdpkru", "wrpkru", "stac", "clac",
    "invpcid", "monitor", "mwait", "verr", "verw", "lar", "lsl", "clwb", "vmcall", "vmmcall", "ldmxcsr", "stmxcsr",
    "emms", "fwait", "wait", "sysenter", "sysexit", "syscall",
  ]

  private static let privileged: Set<String> = [
    "wrmsr", "rdmsr", "lgdt", "lidt", "lldt", "ltr", "lmsw", "clts", "invlpg", "invd", "wbinvd", "in", "out", "ins",
    "outs", "insb", "insl", "outsb", "outsl", "cli", "sti", "hlt", "iret", "sysret", "swapgs", "popf", "lss", "lfs",
    "lgs", "ljmp", "lcall", "lret", "str", "sgdt", "sidt", "sldt", "smsw", "wrfsbase", "wrgsbase", "rdfsbase",
    "rdgsbase", "rsm",
  ]

  mutating func read(_ line: String) {
    if line.hasSuffix(">:"), let open = line.firstIndex(of: "<") {
      function = String(line[line.index(after: open)...].dropLast(2))
      depth = 0
      bodyDepth = 0
      frame = nil
      endsFlow = true
      return
    }
    guard let colon = line.firstIndex(of: ":"), line[..<colon].allSatisfy({ $0.isHexDigit || $0 == " " }) else {
      return
    }
    var words = line[line.index(after: colon)...].split(whereSeparator: { $0 == " " || $0 == "\t" })
    while let first = words.first, ["lock", "rep", "repne", "repe", "data16"].contains(first), words.count > 1 {
      words.removeFirst()
    }
    guard let first = words.first else { return }
    addresses.append(Int(line[..<colon].drop { $0 == " " }, radix: 16) ?? 0)
    let operation = String(first)
    // Without the disassembler's comment.
    let operands = words.dropFirst().prefix { !$0.hasPrefix("#") }.joined(separator: " ")
    // Compilers fill the space behind a function with int3.
    let isFiller = operation == "int3" && (endsFlow || isService)
    if !isFiller { judge(operation, operands, line) }
    track(operation, operands)
    endsFlow = isFiller || ["ret", "jmp", "ud2", "iret", "call"].contains(where: operation.hasPrefix)
  }

  private mutating func judge(_ operation: String, _ operands: String, _ line: String) {
    func stem(_ suffixes: String) -> String {
      guard let last = operation.last, suffixes.contains(last) else { return operation }
      return String(operation.dropLast())
    }
    if Self.refused.contains(operation) || Self.refused.contains(stem("bwlq")) {
      report("not executable in emulated ring 0", line)
    }
    if isService {
      if Self.privileged.contains(operation) || Self.privileged.contains(stem("bwlq")) { report("privileged", line) }
      let segments = ["%ds", "%es", "%ss", "%fs", "%gs"]
      if ["%cr", "%db", "%dr"].contains(where: operands.contains) || segments.contains(where: operands.hasSuffix) {
        report("control or segment register", line)
      }
    }
    let saves = operation == "fxsave64" || operation == "fxrstor64"
    if (operation.first == "f" && !saves)
      || ["%xmm", "%ymm", "%zmm", "%mm", "%st", "%k"].contains(where: operands.contains)
    {
      report("vector or x87 state", line)
    }
    if operation.hasPrefix("lea") || operation.hasPrefix("nop") { return }
    for (offset, register) in Self.negativeOffsets(operands) {
      if register == "%rsp" || (register == "%rbp" && frame.map { $0 + offset > depth } == true) {
        report("below the stack pointer", line)
      }
    }
  }

  private mutating func report(_ what: String, _ line: String) {
    findings.append("\(what): in \(function): \(line.split(separator: " ").joined(separator: " "))")
  }

  /// Follows pushes, pops and reservations, so that RBP-relative accesses can be compared with RSP.
  private mutating func track(_ operation: String, _ operands: String) {
    if operation.hasPrefix("push") {
      depth += 8
    } else if operation.hasPrefix("pop") {
      depth -= 8
    } else if operands.hasSuffix(", %rsp"), operands.hasPrefix("$"),
      let amount = Self.number(operands.dropFirst().prefix { $0 != "," })
    {
      if operation.hasPrefix("sub") { depth += amount }
      if operation.hasPrefix("add") { depth -= amount }
    } else if operation.hasPrefix("lea"), operands.hasSuffix("(%rsp), %rsp"),
      let amount = Self.number(operands.prefix { $0 != "(" })
    {
      depth -= amount
    } else if operands == "%rsp, %rbp" {
      frame = depth
    } else if operands == "%rbp, %rsp", let frame {
      depth = frame
    }
    if operation.hasPrefix("ret") || operation.hasPrefix("jmp") || operation.hasPrefix("iret") || operation == "ud2" {
      depth = bodyDepth
    } else if !operation.hasPrefix("pop") {
      bodyDepth = max(bodyDepth, depth)
    }
  }

  private static func number(_ text: some StringProtocol) -> Int? {
    let negative = text.hasPrefix("-")
    let digits = negative ? text.dropFirst().description : text.description
    let value = digits.hasPrefix("0x") ? Int(digits.dropFirst(2), radix: 16) : Int(digits)
    return value.map { negative ? -$0 : $0 }
  }

  /// The memory operands `-n(%register…)`, with n positive.
  private static func negativeOffsets(_ operands: String) -> [(Int, String)] {
    var result: [(Int, String)] = []
    var rest = operands[...]
    while let open = rest.firstIndex(of: "(") {
      let before = rest[..<open].reversed().prefix { $0.isHexDigit || $0 == "x" || $0 == "-" }.reversed()
      let inside = rest[rest.index(after: open)...].prefix { $0 != ")" && $0 != "," }
      if before.first == "-", let value = number(String(before)) { result.append((-value, String(inside))) }
      rest = rest[rest.index(after: open)...]
    }
    return result
  }
}
