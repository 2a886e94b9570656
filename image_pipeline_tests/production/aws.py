"""The commands ``aws SERVICE OPERATION --option value`` of a page, by boto3.

Started as a program of that name. What the server at ``AWS_ENDPOINT_URL`` offers is done there; of
everything else only the parameters are checked, against AWS's own description of them, and the
answer is made up. Values of structures and lists have to be JSON.
"""

import json
import os
import sys
from pathlib import Path

import boto3
import botocore.session
import jmespath
from botocore import xform_name
from botocore.validate import validate_parameters

#: Commands that have another name than their service.
SERVICES = {"s3api": "s3"}

#: What the server offers.
OFFERED = ("s3", "sqs", "iam", "sts")


def main(words):
    name, operation, *options = words
    service = SERVICES.get(name, name)
    model = botocore.session.get_session().get_service_model(service)
    (shape,) = (
        model.operation_model(one)
        for one in model.operation_names
        if xform_name(one, "-") == operation
    )
    parameters, query = read(options, shape.input_shape)
    if service in OFFERED:
        client = boto3.client(service)
        answer = getattr(client, xform_name(shape.name))(**parameters)
    else:
        if shape.input_shape:
            validate_parameters(parameters, shape.input_shape)
        answer = made_up(shape.output_shape)
    with Path(os.environ["AWS_COMMANDS_LOG"]).open("a", encoding="utf-8") as log:
        log.write(f"{service} {operation}\n")
    answer.pop("ResponseMetadata", None)
    found = jmespath.search(query, answer) if query else answer
    print(found if isinstance(found, str) else json.dumps(found, default=str))


def read(options, shape):
    """Parameters by their names in the API, and the value of ``--query``."""
    known = {xform_name(name, "-"): name for name in shape.members} if shape else {}
    parameters, query = {}, None
    words = iter(options)
    for word in words:
        option = word.removeprefix("--")
        if option in ("query", "output"):
            value = next(words)
            query = value if option == "query" else query
            continue
        name = known.get(option) or known[option.removeprefix("no-")]
        member = shape.members[name]
        if member.type_name == "boolean":
            parameters[name] = not option.startswith("no-")
        else:
            parameters[name] = converted(next(words), member.type_name)
    return parameters, query


def converted(text, kind):
    if kind in ("structure", "list", "map"):
        return json.loads(text)
    if kind in ("integer", "long"):
        return int(text)
    return float(text) if kind in ("double", "float") else text


def made_up(shape):
    """An answer in which every text of the first two levels says where it stands."""
    if shape is None:
        return {}
    return {
        name: {key: f"{name}.{key}" for key in member.members}
        if member.type_name == "structure"
        else name
        for name, member in shape.members.items()
    }


if __name__ == "__main__":
    main(sys.argv[1:])
