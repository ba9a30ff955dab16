// queues.mjs URL JOBS: run so many jobs that do nothing through other queues, and print how many each did a second.
import { Logger, runOnce } from 'graphile-worker'
import PgBoss from 'pg-boss'
import pg from 'pg'

const [url, count] = [process.argv[2], Number(process.argv[3])]
const CONNECTIONS = 4
const BATCH = 100
const database = new pg.Pool({ connectionString: url, max: 1 })

const seconds = async (work) => {
  const began = process.hrtime.bigint()
  await work()
  return Number(process.hrtime.bigint() - began) / 1e9
}

const quiet = { logger: new Logger(() => () => {}), noHandleSignals: true, connectionString: url, concurrency: CONNECTIONS }

async function graphile() {
  const taskList = { nothing: async () => {} }
  // Makes its tables.
  await runOnce({ ...quiet, taskList })
  await database.query(
    "select graphile_worker.add_job('nothing') from generate_series(1, $1)", [count])
  return seconds(() => runOnce({ ...quiet, taskList }))
}

async function boss() {
  const queue = new PgBoss({ connectionString: url, max: CONNECTIONS, supervise: false, schedule: false })
  queue.on('error', (error) => { throw error })
  await queue.start()
  await queue.createQueue('nothing')
  await queue.insert(Array.from({ length: count }, () => ({ name: 'nothing', data: {} })))
  const work = async () => {
    for (;;) {
      const jobs = await queue.fetch('nothing', { batchSize: BATCH })
      if (!jobs?.length) return
      await queue.complete('nothing', jobs.map((job) => job.id))
    }
  }
  const taken = await seconds(() => Promise.all(Array.from({ length: CONNECTIONS }, work)))
  await queue.stop({ graceful: false, wait: false })
  return taken
}

const found = {}
for (const [name, way] of Object.entries({ graphile, boss })) {
  found[name] = Math.round(count / (await way()))
}
console.log(JSON.stringify(found))
await database.end()
process.exit(0)
