"""`muster update`: what devices run, from the offline keys to the last report."""

import typer

from broker.entry.cli import (
    update_ceremony,
    update_images,
    update_keys,
    update_push,
    update_rollouts,
    update_signing,
    update_status,
)

commands = typer.Typer(
    help="Updates: signed by keys that this machine doesn't have.", no_args_is_help=True
)
commands.command("init")(update_ceremony.init)
commands.add_typer(update_keys.commands, name="key")
commands.command("add")(update_images.add)
commands.command("sign")(update_signing.sign)
commands.command("publish")(update_signing.publish)
commands.command("push")(update_push.push)
update_rollouts.add_to(commands)
commands.command("status")(update_status.status)
commands.command("revoke")(update_images.revoke)
commands.command("renew")(update_ceremony.renew)
commands.command("rotate-root")(update_ceremony.rotate_root)
commands.command("export-staging")(update_signing.export_staging)
commands.command("import-staging")(update_signing.import_staging)
commands.command("discard")(update_signing.discard)
