import Testing

@testable import GDBRemote

@Suite struct RegisterTests {
  @Test func numbersOfTheCoreFeatureAreThoseOfGDB() {
    #expect(Register.rip.rawValue == 16)
    #expect(Register.st0.rawValue == 24)
    #expect(Register.xmm0.rawValue == 40)
    #expect(Register.mxcsr.rawValue == 56)
    #expect(Register.offsets[Register.xmm0.rawValue] == 276)
  }

  @Test func eachRegisterKeepsItsValueApartFromItsNeighbours() {
    var file = RegisterFile(hasAVX: true)
    for register in Register.allCases { file[register] = UInt64(register.rawValue) + 1 }
    for register in Register.allCases {
      #expect(file[register] == UInt64(register.rawValue) + 1)
      #expect(file.bytes(of: register).count == register.size)
    }
  }

  @Test func valueIsCutToTheRegisterSize() {
    var file = RegisterFile()
    file[.cs] = 0x1_2345_6789
    #expect(file[.cs] == 0x2345_6789)
    #expect(file[.ss] == 0)
  }

  @Test func wrongSizesChangeNothing() {
    var file = RegisterFile()
    let results = [
      file.setBytes(of: .xmm0, to: [1, 2, 3]), file.setAllBytes(to: [1]),
      file.setBytes(of: .ymm0h, to: [UInt8](repeating: 1, count: 16)),
    ]
    #expect(results == [false, false, false])
    #expect(file == RegisterFile())
  }

  @Test func targetDescriptionNamesEveryRegisterOnce() {
    let document = TargetDescription.document(hasAVX: true)
    for register in Register.allCases {
      #expect(document.contains("name=\"\(register.name)\" bitsize=\"\(register.size * 8)\""))
      #expect(document.contains("regnum=\"\(register.rawValue)\""))
    }
    #expect(!TargetDescription.document(hasAVX: false).contains("ymm0h"))
  }
}
