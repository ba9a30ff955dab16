"""Apply db/sources for whoever runs `yoyo apply` without `pgfleet db migrate`.

yoyo runs this only when a migration was pending, so an edited function alone needs
`pgfleet db migrate`. Keep yoyo's tables where pgfleet looks for them, by a URL that ends in
`?schema=fleet_ledger`; that schema must exist beforehand.
"""

from yoyo import step

from pgfleet.schema.migrate import apply_sources_in_hook

steps = [step(apply_sources_in_hook)]
