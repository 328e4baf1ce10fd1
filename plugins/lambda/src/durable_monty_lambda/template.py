"""The CloudFormation template, as JSON: everything that the executor expects in an account, and no right too many."""

from __future__ import annotations

from typing import Any

_RETENTION_SECONDS = 14 * 24 * 3600
# Far more often than a worker that dies now and then; less than for ever, for messages that are not ours.
_MAX_RECEIVES = 100


def make_template(*, is_durable: bool = False, has_bucket: bool = False) -> dict[str, Any]:
    """The template.

    Args:
        is_durable: A durable function, which needs no queue.
        has_bucket: With a bucket for large values.
    """
    resources = {
        "LogGroup": _log_group(),
        "FunctionRole": _function_role(is_durable=is_durable, has_bucket=has_bucket),
        "Function": _function(is_durable=is_durable),
        "WorkerPolicy": _worker_policy(is_durable=is_durable, has_bucket=has_bucket),
    }
    if not is_durable:
        resources |= _queues() | {"EventInvokeConfig": _event_invoke_config()}
    if has_bucket:
        resources["PayloadBucket"] = _bucket()
    return {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": "A Lambda function that runs host functions of durable-monty",
        "Parameters": _parameters(is_durable=is_durable),
        "Resources": resources,
        "Outputs": _outputs(is_durable=is_durable, has_bucket=has_bucket),
    }


def _parameters(*, is_durable: bool) -> dict[str, Any]:
    def text(description: str, **more: Any) -> dict[str, Any]:
        return {"Type": "String", "Description": description, **more}

    def number(description: str, default: int, least: int, most: int) -> dict[str, Any]:
        return {
            "Type": "Number",
            "Description": description,
            "Default": default,
            "MinValue": least,
            "MaxValue": most,
        }

    parameters = {
        "CodeBucket": text("S3 bucket that holds the package"),
        "CodeKey": text("Its key there: what `durable-monty lambda package` has built"),
        "FunctionName": text("Name of the Lambda function", Default="durable-monty"),
        "AllowedFunctions": text(
            "Patterns of host functions that may run undecorated, with commas between", Default=""
        ),
        "SigningKey": text("The worker's [security] signing_key; empty: calls are not signed", Default="", NoEcho=True),
        "PreviousSigningKeys": text(
            "Earlier or later signing keys that are accepted as well, with commas between", Default="", NoEcho=True
        ),
        "PythonRuntime": text(
            "The interpreter", Default="python3.13", AllowedValues=["python3.11", "python3.12", "python3.13"]
        ),
        "TimeoutSeconds": number("Longest run of one call", 60, 1, 900),
        "MemoryMegabytes": number("Memory, and with it processor time", 512, 128, 10240),
    }
    if is_durable:
        parameters["RetentionDays"] = number("How long results can be read", 14, 1, 90)
    else:
        parameters["EventAgeSeconds"] = number("How long a call may wait for a free sandbox", 3600, 60, 21600)
    return parameters


def _log_group() -> dict[str, Any]:
    return {
        "Type": "AWS::Logs::LogGroup",
        "DeletionPolicy": "Delete",
        "UpdateReplacePolicy": "Delete",
        "Properties": {"LogGroupName": {"Fn::Sub": "/aws/lambda/${FunctionName}"}, "RetentionInDays": 14},
    }


def _function(*, is_durable: bool) -> dict[str, Any]:
    properties: dict[str, Any] = {
        "FunctionName": {"Ref": "FunctionName"},
        "Runtime": {"Ref": "PythonRuntime"},
        "Handler": "durable_monty_lambda.durable_handler" if is_durable else "durable_monty_lambda.handler",
        "Code": {"S3Bucket": {"Ref": "CodeBucket"}, "S3Key": {"Ref": "CodeKey"}},
        "Role": {"Fn::GetAtt": ["FunctionRole", "Arn"]},
        "Timeout": {"Ref": "TimeoutSeconds"},
        "MemorySize": {"Ref": "MemoryMegabytes"},
        "Environment": {
            "Variables": {
                "DURABLE_MONTY_FUNCTIONS": {"Ref": "AllowedFunctions"},
                "DURABLE_MONTY_SIGNING_KEY": {"Ref": "SigningKey"},
                "DURABLE_MONTY_PREVIOUS_SIGNING_KEYS": {"Ref": "PreviousSigningKeys"},
            }
        },
    }
    if is_durable:
        # Waiting for a free sandbox counts too.
        properties["DurableConfig"] = {"ExecutionTimeout": 7200, "RetentionPeriodInDays": {"Ref": "RetentionDays"}}
    return {"Type": "AWS::Lambda::Function", "DependsOn": "LogGroup", "Properties": properties}


def _event_invoke_config() -> dict[str, Any]:
    destination = {"Destination": {"Fn::GetAtt": ["ResultsQueue", "Arn"]}}
    return {
        "Type": "AWS::Lambda::EventInvokeConfig",
        "Properties": {
            "FunctionName": {"Ref": "Function"},
            "Qualifier": "$LATEST",
            "MaximumRetryAttempts": 0,
            "MaximumEventAgeInSeconds": {"Ref": "EventAgeSeconds"},
            "DestinationConfig": {"OnSuccess": destination, "OnFailure": destination},
        },
    }


def _queues() -> dict[str, Any]:
    def queue(**properties: Any) -> dict[str, Any]:
        return {
            "Type": "AWS::SQS::Queue",
            # Records of calls that have run are in there: not to be lost with a stack.
            "DeletionPolicy": "Retain",
            "UpdateReplacePolicy": "Retain",
            "Properties": {"MessageRetentionPeriod": _RETENTION_SECONDS, "SqsManagedSseEnabled": True, **properties},
        }

    redrive = {"deadLetterTargetArn": {"Fn::GetAtt": ["ForeignMessages", "Arn"]}, "maxReceiveCount": _MAX_RECEIVES}
    return {"ResultsQueue": queue(RedrivePolicy=redrive), "ForeignMessages": queue()}


def _bucket() -> dict[str, Any]:
    rule = {"Id": "leftovers", "Status": "Enabled", "ExpirationInDays": 16}
    return {
        "Type": "AWS::S3::Bucket",
        "DeletionPolicy": "Retain",
        "UpdateReplacePolicy": "Retain",
        "Properties": {
            "LifecycleConfiguration": {"Rules": [rule]},
            "PublicAccessBlockConfiguration": {
                "BlockPublicAcls": True,
                "BlockPublicPolicy": True,
                "IgnorePublicAcls": True,
                "RestrictPublicBuckets": True,
            },
        },
    }


def _allow(actions: list[str], *resources: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Action": actions, "Resource": list(resources)}


def _function_arn(suffix: str = "") -> dict[str, str]:
    arn = "arn:${AWS::Partition}:lambda:${AWS::Region}:${AWS::AccountId}:function:${FunctionName}"
    return {"Fn::Sub": f"{arn}{suffix}"}


def _objects() -> dict[str, str]:
    return {"Fn::Sub": "${PayloadBucket.Arn}/*"}


def _function_role(*, is_durable: bool, has_bucket: bool) -> dict[str, Any]:
    statements = [_allow(["logs:CreateLogStream", "logs:PutLogEvents"], {"Fn::GetAtt": ["LogGroup", "Arn"]})]
    if is_durable:
        actions = ["lambda:CheckpointDurableExecution", "lambda:GetDurableExecutionState"]
        statements.append(_allow(actions, _function_arn(), _function_arn(":*")))
    else:
        statements.append(_allow(["sqs:SendMessage"], {"Fn::GetAtt": ["ResultsQueue", "Arn"]}))
    if has_bucket:
        statements.append(_allow(["s3:GetObject", "s3:PutObject"], _objects()))
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "lambda.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    return {
        "Type": "AWS::IAM::Role",
        "Properties": {
            "AssumeRolePolicyDocument": {"Version": "2012-10-17", "Statement": [trust]},
            "Policies": [
                {"PolicyName": "function", "PolicyDocument": {"Version": "2012-10-17", "Statement": statements}}
            ],
        },
    }


def _worker_policy(*, is_durable: bool, has_bucket: bool) -> dict[str, Any]:
    actions = ["lambda:InvokeFunction", "lambda:GetFunctionConfiguration", "lambda:GetFunctionEventInvokeConfig"]
    if is_durable:
        actions = [
            "lambda:InvokeFunction",
            "lambda:GetFunctionConfiguration",
            "lambda:ListDurableExecutionsByFunction",
            "lambda:GetDurableExecution",
            "lambda:StopDurableExecution",
        ]
    statements = [_allow(actions, _function_arn(), _function_arn(":*"))]
    if not is_durable:
        queue_actions = ["sqs:ReceiveMessage", "sqs:DeleteMessage", "sqs:GetQueueAttributes"]
        statements.append(_allow(queue_actions, {"Fn::GetAtt": ["ResultsQueue", "Arn"]}))
    if has_bucket:
        statements.append(_allow(["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], _objects()))
        # head_bucket, and telling an object that is gone from one that may not be read.
        statements.append(_allow(["s3:ListBucket"], {"Fn::GetAtt": ["PayloadBucket", "Arn"]}))
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {
            "Description": "What a durable-monty worker needs; attach it to the user or role that runs it",
            "PolicyDocument": {"Version": "2012-10-17", "Statement": statements},
        },
    }


def _outputs(*, is_durable: bool, has_bucket: bool) -> dict[str, Any]:
    outputs: dict[str, Any] = {
        "FunctionName": {"Description": "function_name of the executor", "Value": {"Ref": "Function"}},
        "WorkerPolicyArn": {"Description": "The policy for whoever runs a worker", "Value": {"Ref": "WorkerPolicy"}},
    }
    if not is_durable:
        outputs["ResultsQueueUrl"] = {
            "Description": "results_queue_url of the executor",
            "Value": {"Ref": "ResultsQueue"},
        }
    if has_bucket:
        outputs["PayloadBucketName"] = {
            "Description": "payload_bucket of the executor",
            "Value": {"Ref": "PayloadBucket"},
        }
    return outputs
