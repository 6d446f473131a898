"""Amazon Bedrock: InvokeModel for embeddings, Converse for completions, signed or with a bearer key.

Enter at ``service``. ``sigv4`` and the parser of event streams need the extra ``bedrock``, imported when first used.
"""
