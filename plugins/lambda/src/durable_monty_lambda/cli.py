"""`durable-monty lambda`: the package and the template of a Lambda function. Imports what a command needs when it runs."""

from __future__ import annotations

from pathlib import Path

import click


@click.group("lambda")
def lambda_() -> None:
    """Build what AWS Lambda needs; nothing here touches an account."""


@lambda_.command()
@click.argument("modules", nargs=-1, metavar="[MODULE]...")
@click.option("--output", default="function.zip", metavar="FILE", show_default=True, help="The zip file to write.")
@click.option("--folder", "folders", multiple=True, metavar="DIR", help="A folder whose content is put in as it is.")
def package(modules: tuple[str, ...], output: str, folders: tuple[str, ...]) -> None:
    """Build the deployment package: the handler, the remote side of the core, and your MODULEs.

    A module is found from the working directory or where it is installed; a package is taken whole. What your modules
    need beside the standard library and boto3 goes into a folder: `pip install --target DIR ...`, then `--folder DIR`.
    """
    from durable_monty_lambda.packaging import PackageProblem, build

    try:
        names = build(Path(output), modules, [Path(folder) for folder in folders])
    except PackageProblem as error:
        raise click.UsageError(str(error)) from error
    click.echo(f"{output}: {len(names)} files, {Path(output).stat().st_size} bytes", err=True)


@lambda_.command()
@click.option("--durable", is_flag=True, help="A Lambda durable function instead of a results queue.")
@click.option("--payload-bucket", is_flag=True, help="With an S3 bucket for large values.")
def template(durable: bool, payload_bucket: bool) -> None:
    """Print a CloudFormation template: function, results queue, destinations and least-privilege roles."""
    import json

    from durable_monty_lambda.template import make_template

    click.echo(json.dumps(make_template(is_durable=durable, has_bucket=payload_bucket), indent=2))
