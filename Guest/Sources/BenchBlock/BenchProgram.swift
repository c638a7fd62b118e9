// The block benchmark: what it measures and how its reports look is docs/benchmark.md.

import BenchmarkCore
import BlockClient
import Pollux

@main enum BenchProgram {
  static func main() {
    let arguments = Program.start.text("arguments") ?? Bytes("")
    let plan: BenchmarkPlan
    do throws(BenchmarkPlanError) { plan = try BenchmarkPlan(arguments) } catch {
      Report(isForPeople: false).failure("bench-block: bad arguments")
      Kernel.exit(64)
    }
    let report = Report(isForPeople: plan.isForPeople)
    var succeeded = false
    do throws(BlockClientError) {
      if plan.isSelfTest {
        succeeded = try SelfTest(plan).run()
      } else if plan.isExercise {
        var exercise = try Exercise(plan, report)
        succeeded = try exercise.run()
      } else if plan.isFlushRun {
        succeeded = try FlushRun(plan, report).run()
      } else {
        succeeded = try Benchmark(plan, report).run()
      }
    } catch {
      switch error {
      case .kernel(let reason): report.failure(reason.name)
      case .refused: report.failure("the block service refuses")
      case .interface: report.failure("the block service breaks its interface")
      }
    }
    if plan.endsMachine {
      do throws(SystemError) { try Program.control(.exit, succeeded ? 0 : 1) } catch {}
    }
    Kernel.exit(succeeded ? 0 : 1)
  }
}
